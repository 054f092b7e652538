"""Makes a crash in this process hold still, so that its stack can be read from outside.

On a fatal signal, faulthandler writes the Python traceback, restores the handler that was there
before its own, and raises the signal again. That handler is libc's `sleep`: it takes the signal's
number for the seconds to sleep. So the thread that crashed parks, with its stack intact, for 4
(SIGILL) to 11 seconds (SIGSEGV), without a line of code that could fail in a broken process. If
nobody has looked and killed it by then, it returns to what has crashed, and as the handler was good
for one time only, the signal then does what it does by default.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import signal
import sys
import threading
from typing import Any

from compilepool.wire.signals import AlternateStack, handle_once

FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

_STACK_SIZE = 256 * 1024
"""Bytes. faulthandler's own alternate stack is too small for what may run on it here."""

_STDERR = 2

_main_stack: AlternateStack | None = None


def park_on_crash(crash_fd: int) -> None:
    """From now on a crash of this process writes a Python traceback to `crash_fd`, and parks.

    Python threads that start later can crash of a stack overflow, too, and still be seen.
    """
    global _main_stack  # noqa: PLW0603 - as long as the process lives
    report_crashes(crash_fd, park=True)
    _main_stack = AlternateStack(_STACK_SIZE)
    _give_threads_a_stack()
    # A process that a job forks crashes like any other, and says so in the job's log.
    os.register_at_fork(after_in_child=functools.partial(report_crashes, _STDERR, park=False))


def report_crashes(crash_fd: int, *, park: bool) -> None:
    """From now on a crash of this process writes a Python traceback to `crash_fd`."""
    faulthandler.disable()  # else `enable` below would not save the handlers that it replaces
    for number in FATAL:
        if park:
            handle_once(number, "sleep")
        else:
            signal.signal(number, signal.SIG_DFL)
    enable: Any = faulthandler.enable
    if sys.version_info >= (3, 14):
        enable(crash_fd, all_threads=True, c_stack=False)  # it would allocate, and may hang
    else:
        enable(crash_fd, all_threads=True)


def _give_threads_a_stack() -> None:
    run: Any = threading.Thread._bootstrap  # type: ignore[attr-defined] # the same in 3.11 to 3.14

    @functools.wraps(run)
    def run_on_stack(self: threading.Thread) -> None:
        with contextlib.closing(AlternateStack(_STACK_SIZE)):
            run(self)

    threading.Thread._bootstrap = run_on_stack  # type: ignore[attr-defined]
