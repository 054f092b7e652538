"""Jobs that run again, and jobs that are not run any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, WorkerCrashed
from tests.proc import PATIENCE_S, pool_process, wait_until


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with CompilePool(1, native_tracebacks=False) as pool:
        yield pool


def begin(path: Path) -> int:
    """Tell the pid, and wait until there is a file `gate` beside the path's."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    assert wait_until(path.with_name("gate").exists)
    return os.getpid()


def runs(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def has_begun(path: Path, times: int) -> Callable[[], bool]:
    return lambda: len(runs(path)) == times


def crash_of(future: CompileFuture[Any]) -> WorkerCrashed:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed), error
    return error


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_killed_from_outside_runs_again(
    pool: CompilePool, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "pids"
    future = pool.options(retries=2).submit(begin, path)
    for attempt in (1, 2):
        assert wait_until(has_begun(path, attempt))
        os.kill(runs(path)[-1], number)
    assert wait_until(lambda: len(runs(path)) == 3)
    (tmp_path / "gate").touch()
    assert future.result(PATIENCE_S) == runs(path)[-1]
    assert future.record.attempts == 3
    assert future.record.worker_pid == runs(path)[-1]


def test_it_does_so_no_more_often_than_it_may(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = pool.options(retries=1).submit(begin, path)
    for attempt in (1, 2):
        assert wait_until(has_begun(path, attempt))
        os.kill(runs(path)[-1], signal.SIGKILL)
    assert crash_of(future).signal == signal.SIGKILL
    assert future.record.attempts == 2


def test_a_job_does_not_run_again_unless_it_may(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = pool.submit(begin, path)
    assert wait_until(lambda: len(runs(path)) == 1)
    os.kill(runs(path)[0], signal.SIGKILL)
    crash_of(future)
    assert len(runs(path)) == 1


def note_and(end: Any, path: Path) -> None:
    with path.open("a") as file:
        file.write("0\n")
    end()


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def fail() -> None:
    raise ValueError("wrong")


@pytest.mark.parametrize("end", [abort, leave, fail])
def test_an_exception_or_a_crash_of_its_own_is_not_tried_again(
    pool: CompilePool, tmp_path: Path, end: Any
) -> None:
    path = tmp_path / "pids"
    assert pool.options(retries=5).submit(note_and, end, path).exception(PATIENCE_S) is not None
    assert len(runs(path)) == 1


def test_nor_is_a_job_over_its_limit(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    future = pool.options(retries=5, timeout=2).submit(begin, path)
    assert isinstance(future.exception(PATIENCE_S), TimeoutError)
    assert len(runs(path)) == 1


def test_a_key_that_crashes_three_times_in_a_row_is_not_run_any_more(
    pool: CompilePool, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    keyed = pool.options(key="softmax-sm90")
    for _ in range(3):
        error = crash_of(keyed.submit(note_and, abort, path))
        assert "was not run" not in str(error)
    future = pool.options(key="softmax-sm90", name="softmax").submit(note_and, abort, path)
    error = crash_of(future)
    assert future.done()
    assert len(runs(path)) == 3
    first_line = str(error).splitlines()[0]
    assert "job 'softmax' was not run: jobs of its key 'softmax-sm90' have crashed" in first_line
    assert "pool.forget('softmax-sm90')" in first_line
    assert "SIGABRT" in str(error)
    assert (error.job, error.signal) == ("softmax", signal.SIGABRT)
    assert future.record.attempts == 0
    # Others are not concerned, and when it is mended it runs again.
    assert pool.options(key="other").submit(abs, -1).result(PATIENCE_S) == 1
    pool.forget("softmax-sm90")
    assert keyed.submit(abs, -1).result(PATIENCE_S) == 1
    crash_of(keyed.submit(note_and, abort, path))
    assert len(runs(path)) == 4


@pytest.mark.parametrize("keep_crashes", [True, False])
def test_those_of_the_key_that_wait_are_not_run_either(tmp_path: Path, keep_crashes: bool) -> None:
    path = tmp_path / "pids"
    with CompilePool(1, native_tracebacks=False, keep_crashes=keep_crashes) as pool:
        futures = [pool.options(key="bad").submit(note_and, abort, path) for _ in range(50)]
        errors = [crash_of(future) for future in futures]
        assert len(runs(path)) < 10  # what had begun before the third was known
        assert "was not run" in str(errors[-1])
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_job_of_the_key_that_ends_well_makes_crashes_before_it_forgotten(
    pool: CompilePool, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    keyed = pool.options(key="sometimes")
    for end in (abort, abort, fail, leave, abort):
        keyed.submit(note_and, end, path).exception(PATIENCE_S)
    assert keyed.submit(abs, -1).result(PATIENCE_S) == 1
    assert len(runs(path)) == 5


def test_deaths_from_outside_poison_no_key(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    for attempt in (1, 2, 3, 4):
        future = pool.options(key="innocent").submit(begin, path)
        assert wait_until(has_begun(path, attempt))
        os.kill(runs(path)[-1], signal.SIGKILL)
        assert crash_of(future).signal == signal.SIGKILL


def test_jobs_without_a_key_are_all_different(pool: CompilePool, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    for _ in range(5):
        assert "was not run" not in str(crash_of(pool.submit(note_and, abort, path)))
    assert len(runs(path)) == 5


def test_a_poisoned_key_stays_so_when_the_supervisor_dies(
    pool: CompilePool, tmp_path: Path
) -> None:
    path = tmp_path / "pids"
    for _ in range(3):
        crash_of(pool.options(key="bad").submit(note_and, abort, path))
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    assert "was not run" in str(crash_of(pool.options(key="bad").submit(abs, -1)))
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
