"""What a worker does when it crashes: it writes a Python traceback, then holds still.

An inspector can then read its native stacks.

On a fatal signal, faulthandler writes the traceback, restores the handler that was installed before
its own, and raises the signal again. That handler is libc's `sleep`, which takes the signal's
number as the seconds to sleep. So the crashed thread parks with its stack intact, and so does every
other thread that crashes in the meantime. The supervisor sees the traceback, has the stacks read,
and kills the worker long before the 4 seconds (SIGILL) to 11 seconds (SIGSEGV) of the sleep are
over. A thread that returned from `sleep` would crash, and park, again.
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
"""The bytes of an alternate stack. faulthandler's own is too small for what runs on it here."""

_STDERR = 2

_enable: Any = faulthandler.enable
_disable = faulthandler.disable
_main_stack: AlternateStack | None = None


def report_crashes(crash_fd: int, *, park: bool) -> None:
    """Make this process write a Python traceback to `crash_fd` when it crashes.

    It does so for a stack overflow, too, in the calling thread and in Python threads that start
    later. `DUMP_SIGNAL` makes the process write the tracebacks of all threads to `crash_fd`.

    Args:
        crash_fd: the descriptor of the crash socket.
        park: whether a thread that has crashed then parks.
    """
    global _main_stack  # noqa: PLW0603 - it must live as long as the process
    _handle_fatal_signals(crash_fd, park=park)
    with contextlib.suppress(OSError):
        _main_stack = AlternateStack(_STACK_SIZE)
    give_threads_a_stack()
    faulthandler.register(DUMP_SIGNAL, crash_fd, all_threads=True)
    # A job that enabled it again would send the traceback elsewhere, and the supervisor would not
    # learn of the crash.
    faulthandler.enable = faulthandler.disable = _do_nothing
    os.register_at_fork(after_in_child=_crash_like_any_other)


def _handle_fatal_signals(fd: int, *, park: bool) -> None:
    _disable()  # enabling saves the handlers that it replaces only if it was disabled
    for number in FATAL:
        if park:
            handle_by_libc(number, "sleep")
        else:
            signal.signal(number, signal.SIG_DFL)
    if sys.version_info >= (3, 14):
        # Writing the C stack needs malloc, and may hang.
        _enable(fd, all_threads=True, c_stack=False)
    else:
        _enable(fd, all_threads=True)


@functools.cache  # once; forked processes inherit it
def give_threads_a_stack() -> None:
    """Give each Python thread that starts from now on a stack for reporting its overflow."""
    run: Any = threading.Thread._bootstrap  # type: ignore[attr-defined] # CPython 3.11 to 3.14

    @functools.wraps(run)
    def run_on_stack(self: threading.Thread) -> None:
        with contextlib.ExitStack() as stack:
            # Without memory for it, an overflow of this thread is not reported.
            with contextlib.suppress(OSError):
                stack.enter_context(contextlib.closing(AlternateStack(_STACK_SIZE)))
            run(self)

    threading.Thread._bootstrap = run_on_stack  # type: ignore[attr-defined]


def _crash_like_any_other() -> None:
    """Restore ordinary crashes in a process that a job has forked.

    No inspector looks at such a process. Its traceback goes to the job's log.
    """
    faulthandler.enable, faulthandler.disable = _enable, _disable
    with contextlib.suppress(Exception):
        _handle_fatal_signals(_STDERR, park=False)


def _do_nothing(*_arguments: object, **_options: object) -> None:
    """Replace `faulthandler.enable` and `faulthandler.disable` in a worker."""
