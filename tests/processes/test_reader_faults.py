"""Whatever fails in the threads of the client, every future ends, and nothing is left."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import pytest

from compilepool import CompilePool, CompilePoolError
from tests.proc import PATIENCE_S, children, is_alive, pool_processes, wait_until
from tests.programs.running import run_code

SESSION = "compilepool.client.session"

FAULTS = [
    # of Python and the program, as eventlet, mocks and logging handlers replace them
    "pickle.loads",
    "json.loads",
    "time.monotonic",
    # of the pool
    f"{SESSION}.receiving.handle_each",
    f"{SESSION}.receiving.of_message",
    f"{SESSION}.receiving.note_usage",
    f"{SESSION}.receiving.has_callbacks",
    f"{SESSION}.receiving.Receiver._fail",
    f"{SESSION}.receiving.Receiver._resolve",
    f"{SESSION}.outcomes.resolve",
    f"{SESSION}.poison.PoisonedKeys.has_run",
    f"{SESSION}.poison.PoisonedKeys.has_crashed",
    f"{SESSION}.failed_calls.FailedCalls.keep",
    f"{SESSION}.crash_keeper.CrashKeeper._write_folder",
    f"{SESSION}.threads.Background.run",
    f"{SESSION}.sending.SupervisorLink.flush",
    f"{SESSION}.calls.UnfinishedCalls.reuse",
    f"{SESSION}.calls.Call._tell",
    "compilepool.wire.channel.Channel.receive",
    "compilepool.client.reports.errors.error_of",
]
"""Functions that fail in the threads of a pool."""

FATAL_FAULTS = [
    "logging.Logger.log",
    "os.waitid",
    "compilepool.client.connection.supervisor_process.SupervisorProcess.bury",
    f"{SESSION}.failed_calls.FailedCalls.take_lost",
    f"{SESSION}.supervision.Supervision._succeed",
    f"{SESSION}.supervision.Supervision._resend",
    "compilepool.linux.pidfds.wait_dead",
    "compilepool.linux.pidfds.reap",
]
"""Functions that fail there after the death of a supervisor."""


class Broken(Exception):
    """What a function raises that somebody has replaced."""


@pytest.fixture
def break_in_pool_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Has a function raise in the threads of pools, and nowhere else; mended after the test."""
    test_thread = threading.current_thread()

    def break_it(name: str) -> threading.Event:
        has_failed = threading.Event()
        module, _, rest = name.rpartition(".")
        while module not in sys.modules:
            try:
                importlib.import_module(module)
            except ImportError:
                module, _, part = module.rpartition(".")
                rest = f"{part}.{rest}"
        owner: Any = sys.modules[module]
        *path, last = rest.split(".")
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, last)

        def fail(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is test_thread:
                return original(*args, **kwargs)
            has_failed.set()
            raise Broken(name)

        monkeypatch.setattr(owner, last, fail)
        return has_failed

    with monkeypatch.context():
        yield break_it


@pytest.fixture(autouse=True)
def without_log() -> Iterator[None]:
    """The faults are logged, or cannot be."""
    logger = logging.getLogger("compilepool")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def faulty_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompilePool]:
    """A pool that is ended when all is mended."""
    before = set(os.listdir("/proc/self/fd"))
    with CompilePool(2) as pool:
        pool.submit(abs, -1).result(PATIENCE_S)
        yield pool
        monkeypatch.undo()
        assert pool.submit(abs, -4).result(PATIENCE_S) == 4, "the pool goes on"
    gc.collect()
    # A function that fails at once does not close or reap what it was given.
    for pid in zombies():
        os.waitpid(pid, 0)
    for fd in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):  # the listing's own
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:compilepool"):
                os.close(int(fd))


def zombies() -> list[int]:
    return [pid for pid in children(os.getpid()) if not is_alive(pid)]


def crash() -> None:
    ctypes.string_at(0)


def assert_ended(futures: Sequence[Future[Any]]) -> None:
    _, unfinished = wait(futures, PATIENCE_S)
    assert not unfinished, f"{len(unfinished)} futures are left"
    for future in futures:
        if not future.cancelled() and (error := future.exception()) is not None:
            assert isinstance(error, CompilePoolError | ValueError), error


@pytest.mark.parametrize("name", FAULTS)
def test_every_future_ends_whatever_function_fails(
    name: str, faulty_pool: CompilePool, break_in_pool_threads: Callable[[str], threading.Event]
) -> None:
    pool = faulty_pool
    has_failed = break_in_pool_threads(name)
    futures: list[Future[Any]] = [
        pool.submit(abs, -2),
        pool.submit(bytes, 1 << 20),
        pool.submit(int, "seven"),
        pool.options(key="softmax").submit(crash),
    ]
    futures[0].add_done_callback(lambda _: None)
    running = pool.submit(time.sleep, 60)
    assert running.cancel()
    assert_ended([*futures, running])
    assert has_failed.is_set()


@pytest.mark.parametrize("name", FATAL_FAULTS)
def test_every_future_ends_whatever_function_fails_after_a_supervisor(
    name: str, faulty_pool: CompilePool, break_in_pool_threads: Callable[[str], threading.Event]
) -> None:
    has_failed = break_in_pool_threads(name)
    futures = [faulty_pool.submit(time.sleep, 60) for _ in range(4)]
    (supervisor,) = pool_processes("supervisor")
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until(has_failed.is_set)
    for future in futures[:2]:
        future.cancel()
    pool_processes("supervisor")
    for future in futures[2:]:
        if not future.done():
            future.cancel()
    assert_ended(futures)


def test_who_is_lost_with_a_supervisor_ends_even_if_no_other_can_be_started(
    faulty_pool: CompilePool, break_in_pool_threads: Callable[[str], threading.Event]
) -> None:
    twice = faulty_pool.submit(time.sleep, 60)
    assert wait_until(twice.running)
    (first,) = pool_processes("supervisor")
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: pool_processes("supervisor") not in ([], [first]))
    once = faulty_pool.submit(time.sleep, 60)
    assert wait_until(once.running)
    break_in_pool_threads("os.posix_spawn")
    os.kill(pool_processes("supervisor")[0], signal.SIGKILL)
    assert_ended([twice, once])


PATCHED = """
import select, sys
del select.poll, select.epoll  # as eventlet does
import ctypes
from compilepool import CompilePool
with CompilePool(2, start_method=sys.argv[1]) as pool:
    assert pool.submit(len, bytes(1 << 20)).result(20) == 1 << 20
    print(type(pool.submit(ctypes.string_at, 0).exception(20)).__name__)
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_pool_works_where_poll_is_gone(start_method: str) -> None:
    result = run_code(PATCHED, start_method)
    assert (result.returncode, result.stdout, result.stderr) == (0, "WorkerCrashed\n", "")


BAD_HANDLER = """
import logging, os, signal, time
class Bad(logging.Handler):
    def handle(self, record):
        raise RuntimeError("a handler of the user's")
logging.getLogger().addHandler(Bad())
logging.getLogger("compilepool").setLevel(logging.DEBUG)
from compilepool import CompilePool
from tests.proc import pool_process
with CompilePool(2) as pool:
    futures = [pool.submit(time.sleep, 0.3) for _ in range(4)]
    assert pool.submit(os.abort).exception(20)
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    print([future.result(20) for future in futures])
"""


SUBMITTING_HANDLER = """
import logging, os, signal, threading, time
has_begun, is_replaced = threading.Event(), threading.Event()
class Submitting(logging.Handler):
    def emit(self, record):
        has_begun.set()
        is_replaced.wait(0.5)
        if record.name == "mine":
            futures.append(pool.submit(abs, -1))
futures = []
logging.getLogger().addHandler(Submitting())
from compilepool import CompilePool
from tests.proc import pool_process
with CompilePool(2) as pool:
    sleeper = pool.submit(time.sleep, 0.3)
    pool.submit(abs, -1).result(20)
    thread = threading.Thread(target=logging.getLogger("mine").warning, args=("",))
    thread.start()
    has_begun.wait(20)
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    sleeper.result(20)
    thread.join(20)
    print(futures[0].result(20))
"""


def test_the_pool_does_not_log_under_a_lock_that_a_logging_handler_may_want() -> None:
    result = run_code(SUBMITTING_HANDLER)
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def test_a_logging_handler_that_raises_ends_no_pool() -> None:
    result = run_code(BAD_HANDLER)
    assert (result.returncode, result.stdout) == (0, "[None, None, None, None]\n"), result.stderr
