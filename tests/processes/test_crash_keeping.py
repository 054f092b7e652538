"""How a pool keeps crashes: in the background, until the last, whatever becomes of the pool."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, CompilePoolError, WorkerCrashed
from compilepool.client.connection.setup import PoolSetup
from compilepool.client.crashes.crash_folder import REPORT
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.client.future import end_with_error
from compilepool.client.session.calls import Call
from compilepool.client.session.crash_keeper import _MAX_WAITING_FDS, CrashKeeper
from compilepool.client.session.threads import Background
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from compilepool.wire.serializers import load_payload
from compilepool.wire.submission import DEFAULT_TERMS
from tests.crashed_jobs import options
from tests.proc import PATIENCE_S, pool_process, wait_until


def initialize(_: bytes) -> None:
    """For a pool whose workers start with something."""


def crash(*_: object) -> None:
    os._exit(7)


def memfds() -> int:
    """How many descriptors of payloads this process has."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += "memfd:compilepool" in os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the listing's own
    return count


class Gate:
    """Holds a pool's background, by the callback of the future of a job that has crashed."""

    def __init__(self) -> None:
        self._is_open = threading.Event()
        self._is_reached = threading.Event()

    def close(self, pool: CompilePool) -> None:
        """From now on what crashes is not kept."""

        def hold(_: object) -> None:
            self._is_reached.set()
            self._is_open.wait(PATIENCE_S)

        pool.submit(crash).add_done_callback(hold)
        assert self._is_reached.wait(PATIENCE_S)

    def open(self) -> None:
        """Now it is."""
        self._is_open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def has_crashed(pool: CompilePool, future: CompileFuture[Any]) -> bool:
    return pool.dump(future).state == "ended"


def kill_idle_supervisor() -> None:
    """Have the pool's reader end with its supervisor."""
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    assert wait_until(lambda: [thread.name for thread in threading.enumerate()].count(NAME) == 1)


NAME = "compilepool"
"""Of the threads of a pool."""


def crash_of(future: CompileFuture[Any]) -> WorkerCrashed:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    return error


def test_what_workers_start_with_is_kept_after_the_pool_has_let_go_of_it(gate: Gate) -> None:
    pool = CompilePool(1, initializer=initialize, initargs=(b"x",))
    gate.close(pool)
    future = pool.submit(crash)
    assert wait_until(lambda: has_crashed(pool, future))
    kill_idle_supervisor()
    pool.shutdown(wait=False)
    gate.open()
    with KeptCrash.open(Path(crash_of(future).folder)) as kept:
        startup, config = kept.startup(), kept.config()
    assert startup is not None
    assert load_payload(startup)[1:] == (initialize, (b"x",))
    assert config.client_pid == 0  # by the time of a replay, another process may have that number


def test_shutdown_waits_for_folders_without_a_supervisor(gate: Gate) -> None:
    pool = CompilePool(1)
    gate.close(pool)
    future = pool.submit(crash)
    assert wait_until(lambda: has_crashed(pool, future))
    kill_idle_supervisor()
    was_done = []

    def shut_down() -> None:
        pool.shutdown()
        was_done.append(future.done())

    thread = threading.Thread(target=shut_down)
    thread.start()
    thread.join(0.1)  # it does not end, unless it does not wait
    gate.open()
    thread.join(PATIENCE_S)
    assert was_done == [True]


def test_a_callback_may_shut_its_pool_down() -> None:
    pool = CompilePool(1)
    has_returned = threading.Event()

    def shut_down(_: object) -> None:
        pool.shutdown()
        has_returned.set()

    pool.submit(crash).add_done_callback(shut_down)
    assert has_returned.wait(PATIENCE_S)
    pool.shutdown()


def test_one_keeper_for_all_supervisors(gate: Gate) -> None:
    with CompilePool(1, initializer=initialize, initargs=(b"x",)) as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        before = memfds()
        for _ in range(3):
            gate.open()
            assert crash_of(pool.submit(crash)).folder
            os.kill(pool_process("supervisor"), signal.SIGKILL)
            assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        assert memfds() == before


def test_crashes_that_wait_hold_few_descriptors(gate: Gate) -> None:
    with CompilePool(2) as pool:
        gate.close(pool)
        before = memfds()
        futures = [pool.submit(crash, bytes(100_000)) for _ in range(_MAX_WAITING_FDS + 4)]
        assert wait_until(lambda: all(has_crashed(pool, future) for future in futures))
        assert memfds() - before == _MAX_WAITING_FDS
        gate.open()
        for future in futures:
            with KeptCrash.open(Path(crash_of(future).folder)) as kept:
                assert load_payload(kept.call()) == (crash, (bytes(100_000),), {})


def test_a_forked_child_has_no_descriptors_of_crashes(gate: Gate) -> None:
    with CompilePool(1, initializer=initialize, initargs=(bytes(100_000),)) as pool:
        gate.close(pool)
        future = pool.submit(crash, bytes(100_000))
        assert wait_until(lambda: has_crashed(pool, future))
        assert memfds() == 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python >= 3.12: this process has threads
            pid = os.fork()
        if pid == 0:
            os._exit(memfds())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        gate.open()
        assert crash_of(future).folder


def test_a_future_ends_even_if_its_report_cannot_be_made() -> None:
    future: CompileFuture[Any] = CompileFuture(name="softmax")
    call = Call(1, "softmax", DEFAULT_TERMS, Payload(Form.INLINE, b"call"), future, ())
    unreadable = Failure(Cause.CRASH)._replace(native=None)  # type: ignore[arg-type]

    def end(call: Call, _failure: Failure, error: CompilePoolError) -> None:
        end_with_error(call.future, error)

    CrashKeeper(PoolSetup(options()), None, Background(), end).keep(call, unreadable)
    error = crash_of(future)
    assert error.job == "softmax"
    assert "its report could not be read here: AttributeError" in str(error)


def test_the_report_says_where() -> None:
    with CompilePool(1, native_tracebacks=False) as pool:
        folder = Path(crash_of(pool.submit(os.kill, 0, signal.SIGABRT)).folder)
    assert "where" in json.loads((folder / REPORT).read_text())


def pause_once(path: Path) -> None:
    if not path.exists():
        path.touch()
        signal.pause()


def test_a_job_that_runs_again_has_no_log_of_the_run_that_died(tmp_path: Path) -> None:
    path = tmp_path / "has run"
    with CompilePool(1) as pool:
        future = pool.submit(pause_once, path)
        assert wait_until(path.exists)
        future.record.log = "of the first run"  # as if the supervisor had just told
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        assert future.result(PATIENCE_S) is None
        assert future.record.log == ""
