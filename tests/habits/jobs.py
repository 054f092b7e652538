"""The jobs of these programs: good ones, bad ones, and those that leave something behind."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn


@dataclasses.dataclass(frozen=True)
class Job:
    """One kind of job.

    Attributes:
        name: the name of the kind.
        do: the function.
        args: its arguments.
        result: what it returns; not looked at if it raises.
        ends: names of the errors that it may end with; empty if it returns.
        options: the job's options.
        is_endless: whether it has to be cancelled.
        kind: the kind of fault in the list of kinds that it is known to find; 0 if none.
    """

    name: str
    do: Callable[..., Any]
    args: tuple[Any, ...] = ()
    result: Any = None
    ends: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_endless: bool = False
    kind: int = 0

    def is_right(self, result: object) -> bool:
        """Whether it may return this."""
        return not self.ends and type(result) is type(self.result) and result == self.result

    def by_value(self) -> Callable[..., Any]:
        """Its function as if it were the script's own, which is sent by value."""
        if not isinstance(self.do, types.FunctionType):
            return self.do
        names = {name: value for name, value in globals().items() if name != "JOBS"}
        names["__name__"] = "__main__"
        copy = types.FunctionType(self.do.__code__, names, self.do.__name__)
        copy.__module__ = "__main__"
        copy.__qualname__ = f"{self.do.__name__}_of_the_script"
        return copy


class OddError(Exception):
    """Cannot be made from its own arguments, as unpickling would."""

    def __init__(self, text: str, other: object) -> None:
        super().__init__(text)
        self.other = other


class GreedyError(Exception):
    """Refuses attributes, and has no words."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no words")


def add(a: int, b: int) -> int:
    return a + b


def make(size: int) -> bytes:
    return b"x" * size


def size_of(data: bytes) -> int:
    return len(data)


def fail(kind: Callable[..., BaseException], *args: object) -> NoReturn:
    raise kind(*args)


def read_null() -> None:
    ctypes.string_at(0)


def signal_itself(number: int) -> int:
    if number != signal.SIGKILL:  # a job before may have ignored or blocked it
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 1


def wait_for_ever() -> None:
    threading.Event().wait()


def fork_a_child_that_stays() -> int:
    if os.fork() == 0:
        while True:
            signal.pause()
    return 1


def leave_a_daemon() -> int:
    subprocess.Popen(["setsid", "sleep", "1000"], stdin=-3, stdout=-3, stderr=-3)
    return 1


def run_a_program() -> int:
    return subprocess.run(["true"], check=False).returncode


def leave_threads() -> int:
    for is_daemon in (True, False):
        threading.Thread(target=threading.Event().wait, daemon=is_daemon, args=(5,)).start()
    return 1


def close_descriptors() -> int:
    os.closerange(3, 256)
    return 1


def go_elsewhere() -> int:
    os.chdir("/")
    os.umask(0o777)
    return 1


def recurse() -> int:
    return recurse() + 1


def make_a_lock() -> Any:
    return threading.Lock()


def replace_output() -> int:
    sys.stdout = sys.stderr = None
    return 1


def close_output() -> int:
    sys.stdout.close()
    return 1


def print_much() -> int:
    for _ in range(500):
        print("x" * 400)
    sys.stdout.flush()
    return 1


def leave_a_timer() -> int:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return 1


def clear_environment() -> int:
    os.environ.clear()
    return 1


def ignore_signals() -> int:
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return 1


def nest() -> None:
    from compilepool import CompilePool

    with CompilePool(1) as pool:
        pool.submit(add, 1, 2).result()


def crash_in_a_thread() -> None:
    thread = threading.Thread(target=os.abort)
    thread.start()
    thread.join()


def stop_reading() -> int:
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(0, 2)
    return 1


def _jobs() -> list[Job]:
    crashed = ("WorkerCrashed",)
    return [
        Job("adds", add, (1, 2), 3),
        Job("adds_builtin", len, ("four",), 4),
        Job("returns_much", make, (300_000,), b"x" * 300_000),
        Job("gets_much", size_of, (b"x" * 300_000,), 300_000),
        Job("raises", fail, (ValueError, "mine"), ends=("ValueError",)),
        Job("raises_odd", fail, (OddError, "a", "b"), ends=("OddError", "SerializationError")),
        Job("raises_greedy", fail, (GreedyError,), ends=("GreedyError",)),
        Job("raises_exit", fail, (SystemExit, 3), ends=("SystemExit",)),
        Job("raises_interrupt", fail, (KeyboardInterrupt,), ends=("KeyboardInterrupt",)),
        Job("exits", os._exit, (3,), ends=crashed),
        Job("aborts", os.abort, ends=crashed),
        Job("reads_null", read_null, ends=crashed),
        Job("is_killed", signal_itself, (signal.SIGKILL,), ends=crashed),
        Job("is_killed_again", signal_itself, (9,), ends=crashed, options={"retries": 1}),
        Job("is_terminated", signal_itself, (signal.SIGTERM,), ends=crashed),
        Job("aborts_in_a_thread", crash_in_a_thread, ends=crashed),
        Job("is_endless", wait_for_ever, ends=("CancelledError",), is_endless=True),
        Job("is_late", wait_for_ever, ends=("JobTimeout",), options={"timeout": 0.2}),
        Job("leaves_a_child", fork_a_child_that_stays, (), 1),
        Job("leaves_a_daemon", leave_a_daemon, (), 1),
        Job("runs_a_program", run_a_program, (), 0),
        Job("leaves_threads", leave_threads, (), 1),
        Job("closes_descriptors", close_descriptors, ends=crashed),
        Job("goes_elsewhere", go_elsewhere, (), 1),
        Job("recurses", recurse, ends=("RecursionError",)),
        Job("returns_a_lock", make_a_lock, ends=("SerializationError",)),
        Job("gets_a_lock", size_of, (threading.Lock(),), ends=("SerializationError",)),
        Job("replaces_output", replace_output, (), 1),
        Job("closes_output", close_output, (), 1, kind=8),
        Job("redirects_descriptors", stop_reading, (), 1),
        Job("prints_much", print_much, (), 1),
        Job("leaves_a_timer", leave_a_timer, (), 1, kind=8),
        Job("clears_environment", clear_environment, (), 1),
        Job("ignores_signals", ignore_signals, (), 1),
        Job("nests", nest, ends=("NestedPoolError",)),
        Job("has_options", add, (1, 2), 3, options={"name": "n", "priority": 1, "key": "k"}),
    ]


JOBS: dict[str, Job] = {job.name: job for job in _jobs()}
