"""What a future's record tells of its job."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S, pool_process, wait_until


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with CompilePool(1) as pool:
        pool.submit(burn, 0).result(PATIENCE_S)  # its worker has imported this module
        yield pool


def burn(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def wait(seconds: float) -> None:
    select.select([], [], [], seconds)


def test_a_record_tells_when_where_and_how_often_a_job_ran(pool: CompilePool) -> None:
    before = time.time()
    future = pool.submit(os.getpid)
    pid = future.result(PATIENCE_S)
    after = time.time()
    record = future.record
    assert record.started is not None
    assert record.ended is not None
    slack = 0.01  # between two readings of two clocks
    times = [before, record.queued, record.started + slack, record.ended + slack, after + 2 * slack]
    assert times == sorted(times)
    assert record.wall_seconds == pytest.approx(record.ended - record.started, abs=1e-6)
    assert record.queue_seconds == pytest.approx(record.started - record.queued)
    assert (record.worker_pid, record.attempts) == (pid, 1)


def test_cpu_time_is_the_jobs_own_not_that_of_those_before(pool: CompilePool) -> None:
    first, second = pool.submit(burn, 0.3), pool.submit(burn, 0.1)
    for future in (first, second):
        future.result(PATIENCE_S)
    assert 0.3 <= first.record.cpu_seconds < 0.4
    assert 0.1 <= second.record.cpu_seconds < 0.2


def test_a_job_that_only_waits_uses_no_cpu(pool: CompilePool) -> None:
    future = pool.submit(wait, 0.3)
    future.result(PATIENCE_S)
    assert future.record.cpu_seconds < 0.05
    assert future.record.wall_seconds >= 0.3


SOURCE = '#include <regex>\n#include <iostream>\nint main() { std::regex r("a"); }\n'


def run_compiler(source: Path) -> float:
    """Compile, and say what the kernel counts of the compiler's CPU time, as time(1) does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["g++", "-O1", "-c", source, "-o", source.with_suffix(".o")], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_cpu_time_of_children_is_exact(pool: CompilePool, tmp_path: Path) -> None:
    source = tmp_path / "source.cpp"
    source.write_text(SOURCE)
    future = pool.submit(run_compiler, source)
    compiler_s = future.result(PATIENCE_S)
    assert compiler_s > 0.1
    assert compiler_s <= future.record.cpu_seconds < compiler_s * 1.05 + 0.01
    # `cc1plus`, a grandchild, takes more than the worker has.
    assert future.record.peak_memory > 50 << 20


def burn_in_children_until_killed() -> None:
    script = "python3 -c 'import time\nwhile time.process_time() < 0.3: pass'"
    subprocess.Popen(["sh", "-c", f"setsid {script} & {script}; true"])
    signal.pause()


def test_cpu_time_of_a_killed_job_is_that_of_all_it_had_started(pool: CompilePool) -> None:
    pool.submit(burn, 0.2).result(PATIENCE_S)
    future = pool.options(timeout=2.0).submit(burn_in_children_until_killed)
    assert isinstance(future.exception(PATIENCE_S), TimeoutError)
    record = future.record
    assert 0.6 <= record.cpu_seconds < 0.9
    assert record.started is not None
    assert record.wall_seconds >= 2.0
    assert (record.attempts, record.worker_pid > 0) == (1, True)


def test_peak_memory_is_what_the_job_added(pool: CompilePool) -> None:
    def take(size: int) -> int:
        return len(b"x" * size)

    large, small, none = (pool.submit(take, size) for size in (200_000_000, 20_000_000, 1))
    for future in (large, small, none):
        future.result(PATIENCE_S)
    assert 190_000_000 < large.record.peak_memory < 230_000_000
    assert 19_000_000 < small.record.peak_memory < 40_000_000
    assert none.record.peak_memory < 5_000_000


def run_large_child() -> None:
    subprocess.run(["python3", "-c", "b'x' * 200_000_000"], check=True)


def run_small_child() -> None:
    subprocess.run(["true"], check=True)


def test_a_job_has_no_peak_of_a_child_of_an_earlier_one(pool: CompilePool) -> None:
    first = pool.submit(run_large_child)
    others = [pool.submit(run_small_child), pool.submit(wait, 0.01)]
    killed = pool.options(timeout=0.1).submit(signal.pause)
    for future in (first, *others, killed):
        future.exception(PATIENCE_S)
    assert first.record.peak_memory > 190_000_000
    assert all(future.record.peak_memory < 50_000_000 for future in (*others, killed))


def test_a_crashed_job_has_a_record(pool: CompilePool) -> None:
    future = pool.submit(os.abort)
    assert future.exception(PATIENCE_S) is not None
    record = future.record
    assert record.worker_pid > 0
    assert record.wall_seconds > 0
    assert record.attempts == 1


def test_a_job_that_raises_has_one(pool: CompilePool) -> None:
    future = pool.submit(int, "x")
    assert isinstance(future.exception(PATIENCE_S), ValueError)
    assert future.record.attempts == 1


def test_a_job_that_never_ran_says_so(pool: CompilePool) -> None:
    running = pool.submit(signal.pause)
    assert wait_until(running.running)
    waiting = pool.submit(abs, -1)
    assert waiting.cancel()
    record = waiting.record
    assert record.queued > 0
    assert (record.started, record.ended, record.attempts) == (None, None, 0)
    assert (record.wall_seconds, record.queue_seconds) == (0.0, 0.0)
    assert running.cancel()


def test_a_job_that_the_supervisors_death_has_run_again_has_its_own_times(
    pool: CompilePool, tmp_path: Path
) -> None:
    def pause_once() -> None:
        if not (tmp_path / "has run").exists():
            (tmp_path / "has run").touch()
            signal.pause()

    future = pool.submit(pause_once)
    assert wait_until((tmp_path / "has run").exists)
    killed = time.time()
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    future.result(PATIENCE_S)
    assert future.record.started is not None
    assert future.record.queued < killed < future.record.started
