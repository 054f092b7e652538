"""What programs replace: functions of modules that the pool uses, too."""

from __future__ import annotations

import builtins
import logging
import os
import pickle
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit


def _wrap(module: Any, name: str) -> None:
    """Replace a function by one that calls it, as tracers do."""
    original: Callable[..., Any] = getattr(module, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    setattr(module, name, wrapper)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("replaced")


@kit_habit("early")
def replaces_sleep(kit: Kit) -> None:
    time.sleep = _refuse


@kit_habit("early")
def stops_the_clock(kit: Kit) -> None:
    """As freezegun and the like do."""
    time.time = lambda: 1_000_000_000.0


@kit_habit("started")
def stops_the_clock_later(kit: Kit) -> None:
    time.time = lambda: 1_000_000_000.0


@kit_habit("early", kind=5, group="poll")
def has_no_poll(kit: Kit) -> None:
    """As eventlet and gevent have it."""
    del select.poll
    del select.epoll


@kit_habit("started", kind=5, group="poll")
def has_no_poll_any_more(kit: Kit) -> None:
    del select.poll
    del select.epoll


@kit_habit("early", group="asyncio")  # which cannot do without
def has_other_sockets(kit: Kit) -> None:
    class Other(socket.socket):
        pass

    socket.socket = Other  # type: ignore[misc] # as it is done
    socket.socketpair = _refuse
    socket.create_connection = _refuse


@kit_habit("early")
def has_other_threads(kit: Kit) -> None:
    class Other(threading.Thread):
        def run(self) -> None:
            threading.current_thread().name += " traced"
            super().run()

    threading.Thread = Other  # type: ignore[misc] # as it is done


@kit_habit("early")
def has_other_locks(kit: Kit) -> None:
    _wrap(threading, "Lock")
    _wrap(threading, "RLock")


@kit_habit("early")
def wraps_functions_of_os(kit: Kit) -> None:
    for name in ("close", "fork", "waitpid", "read", "write", "dup", "kill", "getpid", "waitid"):
        _wrap(os, name)


@kit_habit("started")
def wraps_functions_of_os_later(kit: Kit) -> None:
    for name in ("close", "waitpid", "read", "write", "kill", "waitid"):
        _wrap(os, name)


@kit_habit("early", group="programs")
def forbids_programs(kit: Kit) -> None:
    subprocess.Popen = _refuse  # type: ignore[misc,assignment] # as tests of others do
    os.system = _refuse


@kit_habit("early", allows=("SerializationError",))  # they cannot be pickled any more
def wraps_builtins(kit: Kit) -> None:
    for name in ("print", "open", "__import__", "isinstance", "len"):
        _wrap(builtins, name)


@kit_habit("early", allows=("SerializationError",))
def has_other_pickles(kit: Kit) -> None:
    pickle.dumps = _refuse
    pickle.loads = _refuse


@kit_habit("started", group="temporary")
def has_no_temporary_files(kit: Kit) -> None:
    tempfile.mkdtemp = _refuse
    tempfile.gettempdir = _refuse
    tempfile.tempdir = "/proc/nowhere"


@kit_habit("early")
def seeds_all(kit: Kit) -> None:
    random.seed(0)
    random.random = lambda: 0.5
    os.urandom = lambda count: b"\0" * count


@kit_habit("early")
def wraps_signal_functions(kit: Kit) -> None:
    for name in ("signal", "pthread_sigmask", "set_wakeup_fd"):
        _wrap(signal, name)


@kit_habit("early", group="log", says=("--- Logging error ---.*", ".*"))
def has_a_bad_log_handler(kit: Kit) -> None:
    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("mine")

    logging.getLogger().addHandler(Bad())
    logging.getLogger().setLevel(logging.DEBUG)


@kit_habit("early", allows=("PoolClosed",))
def logs_into_the_pool(kit: Kit) -> None:
    class Remote(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if kit.pools and len(kit.futures) < 40:
                kit.submit("adds", "log")

    logging.getLogger().addHandler(Remote())
    logging.getLogger().setLevel(logging.DEBUG)


@kit_habit("early", allows=("CompilePoolError", "SupervisorDied"), group="executable")
def has_no_executable(kit: Kit) -> None:
    """As programs that embed Python have it."""
    sys.executable = ""


@kit_habit("started", allows=("CompilePoolError", "SupervisorDied"), group="executable")
def has_no_executable_any_more(kit: Kit) -> None:
    sys.executable = ""


@kit_habit("early")
def has_an_odd_path(kit: Kit) -> None:
    sys.path.insert(0, "")
    sys.path.append(b"/bytes")  # type: ignore[arg-type] # as it is found
    sys.path.append("/nowhere\udcff")
    sys.argv = []


@kit_habit("early", allows=("SerializationError",))  # of its functions
def has_no_main(kit: Kit) -> None:
    sys.modules.pop("__main__")


@kit_habit("started", allows=("SerializationError",))  # of functions that use the old ones
def reloads_modules(kit: Kit) -> None:
    for name in ("select", "signal", "pickle", "json", "random"):
        sys.modules.pop(name, None)


@kit_habit("started")
def clears_environment(kit: Kit) -> None:
    keep = os.environ.get("COMPILEPOOL_CRASH_DIR", "")
    os.environ.clear()
    os.environ["COMPILEPOOL_CRASH_DIR"] = keep


@kit_habit("early")
def has_almost_no_environment(kit: Kit) -> None:
    clears_environment(kit)


@kit_habit("early", group="temporary")  # which multiprocessing makes relative to it
def has_lost_its_directory(kit: Kit) -> None:
    (kit.directory / "lost").mkdir()
    os.chdir(kit.directory / "lost")
    (kit.directory / "lost").rmdir()


@kit_habit("started", group="temporary")
def loses_its_directory(kit: Kit) -> None:
    has_lost_its_directory(kit)


@kit_habit("early")
def allows_nobody_anything(kit: Kit) -> None:
    os.umask(0o777)


@kit_habit("early")
def has_no_streams(kit: Kit) -> None:
    sys.stdin = sys.stdout = sys.stderr = None


@kit_habit(
    "early", statuses=(120,), says=("object .*", "lost sys.stderr")
)  # the status of an exit that cannot flush
def has_odd_streams(kit: Kit) -> None:
    class Stream:
        def write(self, text: str) -> int:
            raise OSError("mine")

    sys.stdout = sys.stderr = Stream()
