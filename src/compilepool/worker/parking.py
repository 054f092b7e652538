"""What a crash in this process does: it writes a Python traceback, and then holds still, so that
the stack can be read from outside.

On a fatal signal, faulthandler writes the traceback, restores the handler that was there before its
own, and raises the signal again. That handler is libc's `sleep`: it takes the signal's number for
the seconds to sleep. So the thread that crashed parks, with its stack intact, and so does any other
that crashes meanwhile. The supervisor, which has heard of it by the traceback, has the stacks read
and kills the process long before the 4 (SIGILL) to 11 seconds (SIGSEGV) are over; who returned from
`sleep` would crash, and park, again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import signal
import sys
import threading

from compilepool.light_typing import Any
from compilepool.linux.signals import DUMP_SIGNAL, AlternateStack, handle_by_libc

FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)

_STACK_SIZE = 256 * 1024
"""Bytes. faulthandler's own alternate stack is too small for what may run on it here."""

_STDERR = 2

_enable: Any = faulthandler.enable
_disable = faulthandler.disable
_main_stack: AlternateStack | None = None


def report_crashes(crash_fd: int, *, park: bool) -> None:
    """From now on a crash writes a Python traceback to `crash_fd`; then it parks if `park`.

    That holds for stack overflows, too, here and in Python threads that start later.
    `DUMP_SIGNAL` has tracebacks written to `crash_fd` as well.
    """
    global _main_stack  # noqa: PLW0603 - as long as the process lives
    _handle_fatal_signals(crash_fd, park=park)
    with contextlib.suppress(OSError):
        _main_stack = AlternateStack(_STACK_SIZE)
    give_threads_a_stack()
    faulthandler.register(DUMP_SIGNAL, crash_fd, all_threads=True)
    # A job that enabled it for itself would have the traceback written elsewhere, and the
    # supervisor would not learn of the crash.
    faulthandler.enable = faulthandler.disable = _do_nothing
    os.register_at_fork(after_in_child=_crash_like_any_other)


def _handle_fatal_signals(fd: int, *, park: bool) -> None:
    _disable()  # else enabling it would not save the handlers that it replaces
    for number in FATAL:
        if park:
            handle_by_libc(number, "sleep")
        else:
            signal.signal(number, signal.SIG_DFL)
    if sys.version_info >= (3, 14):
        _enable(fd, all_threads=True, c_stack=False)  # the C stack would need malloc, and may hang
    else:
        _enable(fd, all_threads=True)


@functools.cache  # once, and in all that are forked later
def give_threads_a_stack() -> None:
    """Have Python threads that start from now on tell of a stack overflow."""
    run: Any = threading.Thread._bootstrap  # type: ignore[attr-defined] # the same in 3.11 to 3.14

    @functools.wraps(run)
    def run_on_stack(self: threading.Thread) -> None:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # no memory: an overflow of this thread is not seen
                stack.enter_context(contextlib.closing(AlternateStack(_STACK_SIZE)))
            run(self)

    threading.Thread._bootstrap = run_on_stack  # type: ignore[attr-defined]


def _crash_like_any_other() -> None:
    """In a process that a job has forked: nobody looks into it, but the job's log has its crash."""
    faulthandler.enable, faulthandler.disable = _enable, _disable
    with contextlib.suppress(Exception):
        _handle_fatal_signals(_STDERR, park=False)


def _do_nothing(*_arguments: object, **_options: object) -> None:
    """In place of `faulthandler.enable` and `disable` in a worker."""
