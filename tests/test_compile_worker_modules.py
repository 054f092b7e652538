"""The modules of torch's `compile_worker` that need no torch, with their names and what they do."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compilepool
from compilepool import SerializationError
from compilepool.any_process.phases import take_phases
from compilepool.integrations.torch.compile_worker import (
    timer,
    tracked_process_pool,
    utils,
    watchdog,
)
from compilepool.integrations.torch.compile_worker.tracked_process_pool import (
    TrackedProcessPoolExecutor,
    _queue_stats_report,
    _QueueStats,
)
from compilepool.integrations.torch.compile_worker.watchdog import Phase, report_phase
from tests.processes import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at
from tests.programs.running import Doomed, Program

NAMES = {
    "utils": ["_async_compile_initializer", "has_parent_changed", "in_toplevel_process"],
    "timer": ["Timer"],
    "tracked_process_pool": ["TrackedProcessPoolExecutor", "_queue_stats", "_queue_stats_report"],
    "watchdog": ["Phase", "report_phase"],
}
FOLDER = "compilepool.integrations.torch.compile_worker"

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None"

STOCK_EXECUTOR = f"""
{WITHOUT_TORCH}
import json, os, signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from {FOLDER}.utils import (
    _async_compile_initializer, has_parent_changed, in_toplevel_process
)

NEVER_OPEN = 900

def look():
    return {{
        "pid": os.getpid(),
        "is_top_level": in_toplevel_process(),
        "has_parent_changed": has_parent_changed(),
        "ignores_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "open": [os.readlink(each) for fd in os.listdir("/proc/self/fd")
                 if os.path.lexists(each := f"/proc/self/fd/{{fd}}")],
    }}

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    to_be_closed, kept = os.pipe(), os.pipe()
    executor = ProcessPoolExecutor(
        1,
        mp_context=get_context(sys.argv[1]),
        initializer=_async_compile_initializer,
        initargs=(os.getpid(), [NEVER_OPEN, *to_be_closed]),
    )
    before = executor.submit(look).result()
    executor.submit(interrupt).result()
    print(json.dumps({{
        "here": look(),
        "worker": before,
        "worker afterwards": executor.submit(look).result(),
        "to be closed": os.readlink(f"/proc/self/fd/{{to_be_closed[0]}}"),
        "kept": os.readlink(f"/proc/self/fd/{{kept[0]}}"),
    }}), flush=True)
    sys.stdin.readline()
    executor.shutdown()
"""

LOGGING_PROGRAM = f"""
{WITHOUT_TORCH}
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s:%(message)s")
from {FOLDER}.tracked_process_pool import TrackedProcessPoolExecutor
"""


class OfLaterTorch(IntEnum):
    """What a later torch may have."""

    COMPILING = 2
    LOADING_THE_CUBIN = 3


def wait_and_raise(gate: Path) -> None:
    wait_at(gate)
    raise LookupError("no licence")


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> _QueueStats:
    """The counts, from 0 on: they are those of the whole process."""
    fresh = _QueueStats()
    monkeypatch.setattr(tracked_process_pool, "_queue_stats", fresh)
    return fresh


def report_of(stats: _QueueStats, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is reported of the counts."""
    stats.pool_count = 1
    caplog.set_level(logging.INFO, tracked_process_pool.__name__)
    _queue_stats_report()
    return caplog.messages


def reported_by(code: str) -> list[str]:
    """What a program logs as its report at its end."""
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING_PROGRAM + code],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    prefix = f"INFO {tracked_process_pool.__name__}:"
    lines = ended.stderr.splitlines()
    return [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]


def peak_by_counting(waits: list[tuple[int, int]]) -> int:
    """The most that wait at once: it is reached when one of them begins to."""
    return max(
        (sum(start <= moment < end for start, end in waits) for moment, _ in waits), default=0
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_there_without_torch(name: str) -> None:
    code = f"{WITHOUT_TORCH}; from {FOLDER}.{name} import {', '.join(NAMES[name])}"
    loaded = "print([name for name in sys.modules if name.startswith('torch')])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; {loaded}"], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("['torch']\n", "")


def test_what_is_to_need_no_torch_does_so_because_there_is_none() -> None:
    code = f"{WITHOUT_TORCH}; import {FOLDER}.subproc_pool"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "import of torch halted" in ended.stderr


# utils


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_initializer_makes_workers_of_a_stock_executors_processes(
    context: str, tmp_path: Path
) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), context) as program:
        seen = json.loads(program.read_line())
        here, worker = seen["here"], seen["worker"]
        assert (here["is_top_level"], worker["is_top_level"]) == (True, False)
        assert (here["has_parent_changed"], worker["has_parent_changed"]) == (False, False)
        assert (here["ignores_sigint"], worker["ignores_sigint"]) == (False, True)
        assert seen["worker afterwards"]["pid"] == worker["pid"] != here["pid"]
        program.write("\n")
        assert program.wait() == 0
        assert program.stderr() == ""


def test_the_initializer_closes_what_the_worker_must_not_keep(tmp_path: Path) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), "fork") as program:
        seen = json.loads(program.read_line())
        assert {seen["to be closed"], seen["kept"]} <= set(seen["here"]["open"])
        assert seen["to be closed"] not in seen["worker"]["open"]
        assert seen["kept"] in seen["worker"]["open"]
        program.write("\n")
        assert program.wait() == 0


def test_the_worker_of_a_stock_executor_ends_with_its_owner(tmp_path: Path) -> None:
    script = tmp_path / "stock_executor.py"
    script.write_text(STOCK_EXECUTOR)
    with Program(str(script), "fork") as program:
        worker = json.loads(program.read_line())["worker"]["pid"]
        with Doomed([worker]) as doomed:
            program.kill()
            assert doomed.wait()


def test_the_names_of_utils_are_those_of_the_package() -> None:
    assert utils.in_toplevel_process is compilepool.in_toplevel_process
    assert utils.has_parent_changed is compilepool.has_parent_changed
    assert utils.in_toplevel_process()
    assert not utils.has_parent_changed()


# timer


def test_the_timer_calls() -> None:
    called = threading.Event()
    each = timer.Timer(0.01, called.set)
    each.record_call()
    assert called.wait(PATIENCE_S)
    each.quit()


# tracked_process_pool


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_tracked_pool_runs_jobs_in_workers_of_its_context(
    method: Literal["fork", "spawn", "forkserver"], stats: _QueueStats
) -> None:
    context = get_context(method)
    with TrackedProcessPoolExecutor(2, context, lambda: os.environ.update(WAS_HERE="yes")) as pool:
        assert pool.max_workers == 2
        assert pool.submit(lambda: os.environ.get("WAS_HERE")).result(PATIENCE_S) == "yes"
        # Of a forked process, it is the command of the one that it was forked from.
        command = pool.submit(lambda: sys.orig_argv).result(PATIENCE_S)
        assert any("spawned" in each for each in command) == (method == "spawn")
        assert any("forkserver" in each for each in command) == (method != "spawn")


def test_a_tracked_pool_needs_no_arguments(stats: _QueueStats) -> None:
    with TrackedProcessPoolExecutor() as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_tracked_pool_counts_its_jobs_and_how_many_have_waited(
    tmp_path: Path, stats: _QueueStats
) -> None:
    with TrackedProcessPoolExecutor(1) as pool, Gate(tmp_path / "gate") as gate:
        futures = [pool.submit(wait_at, gate.path)]
        assert wait_until(futures[0].running)
        futures += [pool.submit(wait_at, gate.path) for _ in range(3)]
        assert (stats.enqueue_count, stats.dequeue_count, len(stats.pending)) == (4, 0, 4)
        gate.open()
        for future in futures:
            future.result(PATIENCE_S)
    assert (stats.enqueue_count, stats.dequeue_count, len(stats.pending)) == (4, 4, 0)
    assert stats.max_queue_depth == 3
    assert sorted(stats.timing) == sorted(future.record.queue_seconds for future in futures)


def test_all_pools_of_the_process_are_counted_together(tmp_path: Path, stats: _QueueStats) -> None:
    with (
        TrackedProcessPoolExecutor(1) as first,
        TrackedProcessPoolExecutor(1) as second,
        Gate(tmp_path / "gate") as gate,
    ):
        futures = [pool.submit(wait_at, gate.path) for pool in (first, second)]
        assert wait_until(lambda: all(future.running() for future in futures))
        futures += [pool.submit(wait_at, gate.path) for pool in (first, second)]
        gate.open()
        for future in futures:
            future.result(PATIENCE_S)
    assert (stats.pool_count, stats.enqueue_count, stats.dequeue_count) == (2, 4, 4)
    assert stats.max_queue_depth == 2


def test_a_job_that_raises_is_counted_and_one_that_is_cancelled_has_not_begun(
    tmp_path: Path, stats: _QueueStats
) -> None:
    with TrackedProcessPoolExecutor(1) as pool, Gate(tmp_path / "gate") as gate:
        raises = pool.submit(wait_and_raise, gate.path)
        assert wait_until(raises.running)
        cancelled = pool.submit(abs, -1)
        assert cancelled.cancel()
        gate.open()
        with pytest.raises(LookupError, match="no licence"):
            raises.result(PATIENCE_S)
    assert (stats.enqueue_count, stats.dequeue_count, len(stats.pending)) == (2, 1, 0)


def test_a_job_that_was_not_accepted_is_not_counted(stats: _QueueStats) -> None:
    with TrackedProcessPoolExecutor(1) as pool, pytest.raises(SerializationError):
        pool.submit(threading.Lock().acquire)
    assert (stats.pool_count, stats.enqueue_count, len(stats.pending)) == (1, 0, 0)


def test_what_map_submits_is_counted(stats: _QueueStats) -> None:
    with TrackedProcessPoolExecutor(2) as pool:
        assert list(pool.map(abs, [-1, -2, -3], timeout=PATIENCE_S)) == [1, 2, 3]
    assert (stats.enqueue_count, stats.dequeue_count) == (3, 3)


def test_threads_that_submit_at_once_are_all_counted(stats: _QueueStats) -> None:
    with TrackedProcessPoolExecutor(2) as pool:
        barrier = threading.Barrier(4)

        def submit() -> None:
            barrier.wait(PATIENCE_S)
            for _ in range(25):
                pool.submit(abs, -1)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert (stats.enqueue_count, stats.dequeue_count, len(stats.pending)) == (100, 100, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10))))
def test_the_depth_is_the_most_that_waited_at_once(begun: list[tuple[int, int]]) -> None:
    waits = [(start, start + seconds) for start, seconds in begun]
    stats = _QueueStats(waits=[(float(start), float(end)) for start, end in waits])
    assert stats.max_queue_depth == peak_by_counting(waits)


def test_a_job_that_began_before_it_was_queued_has_not_waited() -> None:
    """The clock was set back meanwhile."""
    stats = _QueueStats(waits=[(0.0, 10.0), (2.0, 4.0), (5.0, 1.0)])
    assert stats.timing == [10.0, 2.0, 0.0]
    assert stats.max_queue_depth == 2


def test_the_report_says_how_long_jobs_have_waited(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.enqueue_count = 22
    stats.waits = [(100.0, 100.0 + seconds) for seconds in reversed(range(1, 21))]
    assert report_of(stats, caplog) == [
        "AsyncCompile Metrics:",
        "  Pools 1",
        "  Items 22 enqueued / 20 dequeued",
        "  Max Queue Depth: 20",
        "  Longest queue time: 20.00s",
        "  P50: 11.00s",
        "  P95: 20.00s",
    ]


def test_the_95th_percentile_is_not_the_longest_of_many(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.waits = [(0.0, float(seconds)) for seconds in range(100)]
    assert report_of(stats, caplog)[-3:] == [
        "  Longest queue time: 99.00s",
        "  P50: 50.00s",
        "  P95: 95.00s",
    ]


def test_the_report_has_no_95th_percentile_of_less_than_20_jobs(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.waits = [(0.0, float(seconds)) for seconds in range(1, 20)]
    assert report_of(stats, caplog)[-2:] == ["  Longest queue time: 19.00s", "  P50: 10.00s"]


def test_the_report_has_no_times_where_no_job_has_begun(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    assert report_of(stats, caplog) == [
        "AsyncCompile Metrics:",
        "  Pools 1",
        "  Items 0 enqueued / 0 dequeued",
        "  Max Queue Depth: 0",
    ]


@pytest.mark.parametrize("count", [19, 20])
def test_a_program_reports_once_when_it_ends(count: int) -> None:
    code = f"""
with TrackedProcessPoolExecutor(1) as pool:
    for future in [pool.submit(abs, -1) for _ in range({count})]:
        future.result()
"""
    patterns = [
        "AsyncCompile Metrics:",
        "  Pools 1",
        f"  Items {count} enqueued / {count} dequeued",
        r"  Max Queue Depth: \d+",
        r"  Longest queue time: \d+\.\d\ds",
        r"  P50: \d+\.\d\ds",
        *([r"  P95: \d+\.\d\ds"] if count >= 20 else []),
    ]
    lines = reported_by(code)
    assert len(lines) == len(patterns)
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_program_that_ends_while_jobs_run_reports_nonetheless() -> None:
    code = """
import signal
pool, another = TrackedProcessPoolExecutor(1), TrackedProcessPoolExecutor(1)
futures = [pool.submit(signal.pause) for _ in range(2)]
"""
    lines = reported_by(code)
    assert lines[:2] == ["AsyncCompile Metrics:", "  Pools 2"]
    assert lines[2].startswith("  Items 2 enqueued / ")


def test_a_program_without_a_pool_reports_nothing() -> None:
    assert reported_by("") == []


# watchdog


def use_the_cache() -> None:
    report_phase(Phase.QUERYING_CACHE)
    report_phase(Phase.COMPILING)
    report_phase(Phase.RUNNING)


def load() -> None:
    report_phase(OfLaterTorch.COMPILING)
    report_phase(OfLaterTorch.LOADING_THE_CUBIN)


@pytest.mark.parametrize(
    ("job", "phases"),
    [
        (use_the_cache, ["cache look-up", "compile", "running"]),
        (load, ["compile", "loading the cubin"]),
    ],
)
def test_the_phases_of_a_job_have_names(job: Callable[[], None], phases: list[str]) -> None:
    with compilepool.CompilePool(1) as pool:
        future = pool.submit(job)
        future.result(PATIENCE_S)
    assert [phase.name for phase in future.record.phases] == phases


def test_the_numbers_of_phases_are_torchs() -> None:
    assert [(phase.name, phase.value) for phase in watchdog.Phase] == [
        ("RUNNING", 0),
        ("QUERYING_CACHE", 1),
        ("COMPILING", 2),
    ]


def test_outside_of_a_job_a_phase_does_nothing() -> None:
    use_the_cache()
    load()
    assert take_phases() == []
