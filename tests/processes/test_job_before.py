"""What a job leaves behind in its worker: it decides no other job's fate, or is told of."""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, JobTimeout, WorkerCrashed
from compilepool.client.crashes.crash_folder import REPORT, default_root
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at
from tests.zoo.victims import NEEDS

STARTS = pytest.mark.parametrize("start_method", ["fork", "spawn"])
SOON_S = 0.01


@contextlib.contextmanager
def pool_of_one(**options: Any) -> Iterator[CompilePool]:
    with CompilePool(1, **options) as pool:
        yield pool


def crash_of(future: CompileFuture[Any]) -> WorkerCrashed:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed), error
    return error


def pid() -> int:
    return os.getpid()


# Timers


def leave_timer(timer: int) -> int:
    signal.setitimer(timer, SOON_S)
    return os.getpid()


def leave_alarm() -> int:
    signal.alarm(1)
    return os.getpid()


def leave_unnoticed_timer() -> int:
    """As C code would."""
    time.sleep(0.001)
    signal.setitimer.__wrapped__(signal.ITIMER_REAL, SOON_S)  # type: ignore[attr-defined]
    return os.getpid()


def spend(seconds: float) -> int:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return os.getpid()


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@STARTS
@pytest.mark.parametrize("timer", [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF])
def test_a_timer_goes_off_in_no_later_job(timer: int, start_method: str) -> None:
    with pool_of_one(start_method=start_method) as pool:
        before = pool.submit(leave_timer, timer).result(PATIENCE_S)
        assert pool.submit(spend, 4 * SOON_S).result(PATIENCE_S) == before


def test_nor_does_an_alarm_or_a_timer_of_c_code() -> None:
    with pool_of_one() as pool:
        before = pool.submit(leave_unnoticed_timer).result(PATIENCE_S)
        assert pool.submit(sleep, 4 * SOON_S).result(PATIENCE_S) == before
        assert pool.submit(leave_alarm).result(PATIENCE_S) == before
        assert pool.submit(sleep, 1.2).result(PATIENCE_S) == before


class Late(Exception):
    """Raised by a timer's handler."""


def bounded(seconds: float) -> str:
    """Ends at about the time at which its own timer goes off, as a job that bounds itself may."""

    def raise_late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    with contextlib.suppress(Late):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        return "in time"
    return "late"


def test_a_timer_that_goes_off_at_the_end_of_its_job_ends_no_worker() -> None:
    with pool_of_one() as pool:
        before = pool.submit(pid).result(PATIENCE_S)
        futures = [pool.submit(bounded, 0.0004 + each * 1e-6) for each in range(200)]
        for future in futures:
            error = future.exception(PATIENCE_S)
            assert error is None or isinstance(error, Late)
        assert pool.submit(pid).result(PATIENCE_S) == before


def start_timer() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_PROF, 100, 100)


def timer_runs() -> bool:
    time.sleep(0.001)
    return signal.getitimer(signal.ITIMER_PROF)[1] == 100


def test_a_timer_of_the_initializer_goes_on() -> None:
    with pool_of_one(initializer=start_timer) as pool:
        assert pool.submit(timer_runs).result(PATIENCE_S)
        assert pool.submit(timer_runs).result(PATIENCE_S)


# Streams and descriptors


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def replace_streams() -> None:
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()


def detach_streams() -> None:
    """As old recipes for UTF-8 do."""
    writer = codecs.getwriter("utf-8")
    sys.stdout = writer(sys.stdout.detach())  # type: ignore[union-attr]
    sys.stderr = writer(sys.stderr.detach())  # type: ignore[union-attr]


def put_anything_there() -> None:
    sys.stdout = sys.stderr = None


def close_descriptors() -> None:
    for fd in (0, 1, 2):
        os.close(fd)


def say() -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo from a child"], check=True)


@STARTS
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [close_streams, replace_streams, detach_streams, put_anything_there, close_descriptors],
)
def test_the_next_job_has_its_output(
    spoil: Callable[[], None],
    capture: bool,
    start_method: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pool_of_one(start_method=start_method, capture=capture) as pool:
        before = pool.submit(pid).result(PATIENCE_S)
        pool.submit(spoil).result(PATIENCE_S)
        future = pool.submit(say)
        future.result(PATIENCE_S)
        assert pool.submit(pid).result(PATIENCE_S) == before
    if capture:
        assert sorted(future.record.log.splitlines()) == ["from a child", "to stderr", "to stdout"]
    else:
        out, err = capfd.readouterr()
        assert sorted(out.splitlines()) == ["from a child", "to stdout"]
        assert "to stderr" in err


def twice(data: bytes) -> bytes:
    return data * 2


def close_and_give(data: bytes) -> bytes:
    close_descriptors()
    return data


def test_large_calls_and_results_survive_closed_descriptors() -> None:
    large = bytes(1 << 20)
    with pool_of_one() as pool:
        before = pool.submit(pid).result(PATIENCE_S)
        for _ in range(3):
            pool.submit(close_descriptors).result(PATIENCE_S)
            assert pool.submit(twice, large).result(PATIENCE_S) == large * 2
            assert pool.submit(close_and_give, large).result(PATIENCE_S) == large
            assert pool.submit(twice, large).result(PATIENCE_S) == large * 2
        assert pool.submit(pid).result(PATIENCE_S) == before


def set_up() -> None:
    sys.stdout = io.StringIO()


def is_a_string() -> bool:
    return isinstance(sys.stdout, io.StringIO)


def test_the_streams_of_the_initializer_stay() -> None:
    with pool_of_one(initializer=set_up) as pool:
        assert pool.submit(is_a_string).result(PATIENCE_S)
        pool.submit(replace_streams).result(PATIENCE_S)
        assert pool.submit(is_a_string).result(PATIENCE_S)


# Reports


def abort() -> None:
    os.abort()


def test_a_report_says_what_its_worker_had_run_before() -> None:
    with pool_of_one(native_tracebacks=False) as pool:
        first = crash_of(pool.submit(abort))
        assert (first.jobs_before, first.last_job) == (0, "")
        assert "  before " not in str(first)
        for name in ("one", "two"):
            pool.options(name=name).submit(abs, -1).result(PATIENCE_S)
        error = crash_of(pool.submit(abort))
        assert (error.jobs_before, error.last_job) == (2, "two")
        assert "  before   the worker had run 2 jobs, the last of them 'two'" in str(error)


def test_so_does_a_timeout(gate: Gate) -> None:
    with pool_of_one() as pool:
        pool.options(name="one").submit(wait_at, Path(os.devnull)).result(PATIENCE_S)
        error = pool.options(timeout=0.1).submit(wait_at, gate.path).exception(PATIENCE_S)
    assert isinstance(error, JobTimeout)
    assert (error.jobs_before, error.last_job) == (1, "one")
    assert "  before   the worker had run one job, 'one'" in str(error)


# Leftovers that end the worker


def leave_thread(gate: Path) -> None:
    threading.Thread(target=abort_at, args=(gate,), daemon=True).start()


def abort_at(gate: Path) -> None:
    wait_at(gate)
    os.abort()


def leave_child(gate: Path, name: str) -> None:
    subprocess.Popen(["flock", "-s", gate, "kill", "-s", name, str(os.getpid())])


def begin(path: Path) -> str:
    """Note this run. The first one waits until its worker dies."""
    with path.open("a") as file:
        file.write("begun\n")
    if path.read_text() == "begun\n":
        time.sleep(PATIENCE_S)
    return "fine"


LEAVE = pytest.mark.parametrize(
    ("leave", "arguments", "words"),
    [
        pytest.param(
            leave_thread,
            (),
            ("in a thread that an earlier job may have left", "the thread that crashed is older"),
            marks=NEEDS,
        ),
        (
            leave_child,
            ("TERM",),
            ("perhaps by a process that an earlier job has left", "it may have sent the signal"),
        ),
        (
            leave_child,
            ("USR1",),
            ("perhaps by a process that an earlier job has left", "it may have sent the signal"),
        ),
    ],
)


@STARTS
@LEAVE
def test_a_job_that_dies_of_what_another_has_left_is_not_blamed(
    leave: Callable[..., None],
    arguments: tuple[Any, ...],
    words: tuple[str, str],
    start_method: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "begun"
    with pool_of_one(start_method=start_method) as pool:
        for attempt in range(4):  # with the fourth, its key would be poisoned
            with Gate(tmp_path / f"gate {attempt}") as gate:
                pool.options(name="leaver").submit(leave, gate.path, *arguments).result(PATIENCE_S)
                path.unlink(missing_ok=True)
                future = pool.options(name="innocent", key="innocent").submit(begin, path)
                assert wait_until(path.exists)
                gate.open()
                error = crash_of(future)
            assert all(each in " ".join(str(error).split()) for each in words)
            assert error.last_job == "leaver"
        text = (Path(error.folder) / "report.txt").read_text()
        assert words[0] in " ".join(text.split())


@LEAVE
def test_it_runs_again_if_it_may(
    leave: Callable[..., None],
    arguments: tuple[Any, ...],
    words: tuple[str, str],
    gate: Gate,
    tmp_path: Path,
) -> None:
    path = tmp_path / "begun"
    with pool_of_one() as pool:
        pool.submit(leave, gate.path, *arguments).result(PATIENCE_S)
        future = pool.options(retries=1).submit(begin, path)
        assert wait_until(path.exists)
        gate.open()
        assert future.result(PATIENCE_S) == "fine"
        assert future.record.attempts == 2
    assert words


def test_without_native_stacks_the_thread_is_known_by_its_python_stack(gate: Gate) -> None:
    with pool_of_one(native_tracebacks=False, keep_crashes=False) as pool:
        assert "earlier" not in str(crash_of(pool.submit(abort_in_thread)))
        pool.submit(leave_thread, gate.path).result(PATIENCE_S)
        assert "earlier" not in str(crash_of(pool.submit(abort)))
        pool.submit(leave_thread, gate.path).result(PATIENCE_S)
        future = pool.submit(time.sleep, PATIENCE_S)
        assert wait_until(future.running)
        gate.open()
        assert "in a thread that an earlier job may have left" in str(crash_of(future))


def abort_in_thread() -> None:
    thread = threading.Thread(target=os.abort)
    thread.start()
    thread.join()


def raise_signal_with_child() -> None:
    subprocess.Popen(["sleep", "60"])
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(PATIENCE_S)


@pytest.mark.parametrize("job", [abort_in_thread, abort, raise_signal_with_child])
def test_what_a_job_does_itself_is_its_own_doing(job: Callable[[], None], gate: Gate) -> None:
    with pool_of_one() as pool:
        if job is abort:
            pool.submit(leave_thread, gate.path).result(PATIENCE_S)
        pool.submit(abs, -1).result(PATIENCE_S)
        future = pool.options(retries=3).submit(job)
        error = crash_of(future)
        assert "earlier" not in str(error)
        assert future.record.attempts == 1


@pytest.mark.parametrize("leave", [leave_thread, leave_child])
def test_a_worker_that_dies_without_a_job_fails_none_and_is_told_of(
    leave: Callable[..., None], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="compilepool")
    arguments = ("TERM",) if leave is leave_child else ()
    with pool_of_one() as pool:
        pool.options(name="leaver").submit(leave, gate.path, *arguments).result(PATIENCE_S)
        gate.open()
        assert wait_until(lambda: bool(caplog.records))
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("job 'leaver' has ended, but later, without a job, its worker")
    folders = list(default_root().glob("2*"))
    if leave is leave_child:
        assert "SIGTERM" in line
        assert folders == []
    else:
        (folder,) = folders
        assert json.loads((folder / REPORT).read_text())["cause"] == "idle"


class Cycle:
    """Garbage once its job is over, and crashes the worker when it is collected."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.me = self

    def __del__(self) -> None:
        if os.getpid() != self.owner:
            os.abort()


def drop(_: object) -> None:
    gc.disable()


def collect() -> None:
    gc.collect()


def test_a_crash_in_a_collection_may_be_of_older_garbage() -> None:
    with pool_of_one() as pool:
        pool.options(name="dropper").submit(drop, Cycle()).result(PATIENCE_S)
        error = crash_of(pool.submit(collect))
    assert "it crashed while it collected garbage, which an earlier job may have left" in str(error)
    assert error.last_job == "dropper"
