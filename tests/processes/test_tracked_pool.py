"""torch's `tracked_process_pool` without torch: it runs and counts jobs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import pytest

from compilepool.integrations.torch.compile_worker import tracked_process_pool
from compilepool.integrations.torch.compile_worker.tracked_process_pool import (
    TrackedProcessPoolExecutor,
    _QueueStats,
)
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at

FOLDER = "compilepool.integrations.torch.compile_worker"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None"
LOGGING_PROGRAM = f"""
{WITHOUT_TORCH}
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s:%(message)s")
from {FOLDER}.tracked_process_pool import TrackedProcessPoolExecutor
"""


def wait_and_raise(gate: Path) -> None:
    wait_at(gate)
    raise LookupError("no licence")


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> _QueueStats:
    """The counts, from 0 on: they are those of the whole process."""
    fresh = _QueueStats()
    monkeypatch.setattr(tracked_process_pool, "_queue_stats", fresh)
    return fresh


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
