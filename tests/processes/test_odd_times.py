"""Calls at odd times: beside other threads, within a start, in callbacks, before a fork."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

from compilepool import CompilePool, CompilePoolError, PoolClosed, SupervisorDied
from compilepool.client.connection.setup import environment_of_pool
from compilepool.client.session import receiving
from tests.proc import PATIENCE_S, descendants, wait_until
from tests.programs.fifos import Fifo, run_until
from tests.programs.running import run_code


def test_pools_start_while_other_threads_make_loggers_and_change_the_environment() -> None:
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            logging.getLogger(f"churn.{number}")
            os.environ[f"CHURN_{number % 7}"] = "1"
            os.environ.pop(f"CHURN_{(number + 3) % 7}", None)

    before = set(logging.root.manager.loggerDict)
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(3):
            with CompilePool(1) as pool:
                assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        for _ in range(2000):
            environment_of_pool(os.environ, {}, 1)
    finally:
        stop.set()
        thread.join()
        for name in set(logging.root.manager.loggerDict) - before:
            del logging.root.manager.loggerDict[name]
        for number in range(7):
            os.environ.pop(f"CHURN_{number}", None)


def test_a_dump_in_a_callback_is_refused_at_once(pool: CompilePool, fifo: Fifo) -> None:
    running = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    said: list[BaseException] = []
    done = threading.Event()

    def look(_: object) -> None:
        try:
            pool.dump(running)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            said.append(error)
        done.set()

    gate = Path(os.devnull)
    future = pool.submit(run_until, gate)
    future.add_done_callback(look)
    if not done.wait(PATIENCE_S):
        pytest.fail("no callback")
    if threading.main_thread() is threading.current_thread() and not said:
        pytest.skip("the job had ended before the callback was added")
    (error,) = said
    assert type(error) is RuntimeError
    assert "'run_until' in a callback of a future would wait for itself" in str(error)
    fifo.open()
    assert running.result(PATIENCE_S) == "ran"


def test_a_pool_that_is_killed_while_it_starts_leaves_nothing() -> None:
    for delay_s in (0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016):
        pool = CompilePool(1)
        killer = threading.Timer(delay_s, pool.kill_workers)
        killer.start()
        # It was refused, cancelled because it had not begun, or killed.
        with contextlib.suppress(PoolClosed, CancelledError):
            error = pool.submit(time.sleep, 60).exception(PATIENCE_S)
            assert isinstance(error, PoolClosed)
        killer.join()
        assert wait_until(lambda: not descendants(os.getpid()))


def test_a_supervisor_that_never_answers_is_replaced_and_its_jobs_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(receiving, "_ANSWER_MS", 200)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 1000\n")
    python.chmod(0o755)
    with CompilePool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", str(python))
            error = pool.submit(abs, -1).exception(PATIENCE_S)
        assert isinstance(error, SupervisorDied)
        assert "has not answered within 0.2 s" in str(error)
        monkeypatch.undo()
        assert pool.submit(abs, -2).result(PATIENCE_S) == 2


WITHIN_A_START = """
import os
from compilepool import CompilePool
pool = CompilePool(1, start_method="{start_method}")
inner = []
spawn = os.posix_spawn
def interrupt(*args, **kwargs):
    pid = spawn(*args, **kwargs)
    inner.append(pool.submit(abs, -1))
    inner.append(pool.options(name="second").submit(abs, -2))
    return pid
os.posix_spawn = interrupt
with pool:
    outer = pool.submit(abs, -3)
    os.posix_spawn = spawn
    print(*(future.result(20) for future in inner), outer.result(20))
    print(pool.stats().restarts.supervisor)
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_job_that_a_signal_handler_submits_within_the_start_runs(start_method: str) -> None:
    result = run_code(WITHIN_A_START.format(start_method=start_method))
    assert (result.returncode, result.stdout, result.stderr) == (0, "1 2 3\n0\n", "")


WITHIN_A_FAILED_START = """
import os, sys
from compilepool import CompilePool, CompilePoolError
pool = CompilePool(1)
inner = []
def interrupt(*args, **kwargs):
    inner.append(pool.submit(abs, -1))
    raise OSError(11, "no more processes")
spawn, os.posix_spawn = os.posix_spawn, interrupt
try:
    pool.submit(abs, -3)
except CompilePoolError as error:
    print(error)
os.posix_spawn = spawn
print(inner[0].exception(20))
print(pool.submit(abs, -2).result(20))
pool.shutdown()
"""


def test_a_job_that_a_signal_handler_submits_within_a_start_that_fails_ends() -> None:
    result = run_code(WITHIN_A_FAILED_START)
    outer, inner, later = result.stdout.splitlines()
    assert "could not be started: [Errno 11] no more processes" in outer
    assert inner.startswith("job 'abs' is lost: no supervisor could be started")
    assert (later, result.returncode, result.stderr) == ("2", 0, "")


BEFORE_A_FORK = """
import os
from compilepool import CompilePool
def initialize():
    import sys
    sys.initialized = True
pool = CompilePool(1, initializer=initialize)
def look():
    import sys
    return sys.initialized
pid = os.fork()
with pool:
    print(pool.submit(look).result(20), flush=True)
if pid:
    print(os.waitpid(pid, 0)[1])
"""


def test_a_pool_that_has_started_nothing_can_be_used_on_both_sides_of_a_fork() -> None:
    result = run_code(BEFORE_A_FORK)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\nTrue\n0\n", "")


def test_an_interrupted_cancel_ends_the_future(pool: CompilePool, fifo: Fifo) -> None:
    future = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    session = pool._session
    send = session.link.send

    def interrupted(*_: object, **__: object) -> bool:
        session.link.send = send  # type: ignore[method-assign] # once
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    session.link.send = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert future.cancelled()
    fifo.open()


def test_priorities_in_the_past_do_not_keep_short_jobs_from_travelling_together() -> None:
    with CompilePool(1) as pool:
        link = pool._session.link
        assert pool.options(priority=1).submit(abs, -1).result(PATIENCE_S) == 1
        fifo_like = [pool.submit(time.sleep, 0.2)]
        futures = [pool.submit(abs, -n) for n in range(200)]
        supervisor = link.supervisor
        assert supervisor is not None
        was_held = supervisor.has_held
        urgent = pool.options(priority=1).submit(abs, -1)
        assert not supervisor.has_held, "what is urgent does not wait, nor what came before it"
        assert [future.result(PATIENCE_S) for future in futures] == list(range(200))
        assert urgent.result(PATIENCE_S) == 1
        fifo_like[0].result(PATIENCE_S)
        assert was_held


def test_errors_of_a_start_are_errors_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    pool = CompilePool(1)
    for _ in range(2):
        with pytest.raises(CompilePoolError, match="could not be started"):
            pool.submit(abs, -1)
    pool.shutdown()


def test_what_a_signal_handler_submits_while_a_start_fails_ends_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "")
    futures = []

    def submit(*_: object) -> None:
        with contextlib.suppress(CompilePoolError):
            futures.append(pool.submit(abs, -1))

    before = signal.signal(signal.SIGALRM, submit)
    try:
        for delay in range(400):  # at every moment of a start
            pool = CompilePool(1)
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + delay % 80))
            with contextlib.suppress(CompilePoolError):
                pool.submit(abs, -1)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert futures
    assert not wait(futures, PATIENCE_S).not_done
    assert not caplog.records
