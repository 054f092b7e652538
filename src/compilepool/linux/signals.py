"""Signal handling below what the standard library offers: C handlers and alternate stacks.

Layouts as glibc and musl have them on x86-64 and aarch64, sigaction(2), sigaltstack(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal

from compilepool.linux import process

DUMP_SIGNAL = signal.SIGRTMAX - 3
"""Has a worker write the Python traceback of all its threads to its crash socket."""

_SA_ONSTACK = 0x08000000
_SIGSET_WORDS = 1024 // (8 * ctypes.sizeof(ctypes.c_ulong))


class _Sigaction(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * _SIGSET_WORDS),
        ("flags", ctypes.c_uint),
        ("restorer", ctypes.c_void_p),
    )


class _Stack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_SS_DISABLE = 2


def handle_by_libc(number: int, function: str) -> None:
    """Handle a signal by a function of libc.

    It is called with the signal's number, on the alternate stack if there is one, with all signals
    blocked that can be.

    Raises:
        OSError: the kernel refused.
    """
    libc = process.libc()
    action = _Sigaction()
    action.handler = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
    action.flags = _SA_ONSTACK
    action.mask[:] = [ctypes.c_ulong(-1).value] * _SIGSET_WORDS
    if libc.sigaction(number, ctypes.byref(action), None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"sigaction({number}): {os.strerror(error)}")


class AlternateStack:
    """A stack for this thread's signal handlers: they can run when its own has overflowed.

    To be closed in the same thread, before it ends.

    Raises:
        OSError: no memory for it.
    """

    def __init__(self, size: int) -> None:
        # Private: a child that a job forks has a stack of its own at the same place.
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = ctypes.c_char.from_buffer(self._memory)
        stack = _Stack(ctypes.addressof(self._view), 0, size)
        if process.libc().sigaltstack(ctypes.byref(stack), None) != 0:
            self.close()
            raise OSError("sigaltstack was refused")

    def close(self) -> None:
        stack = _Stack(None, _SS_DISABLE, 0)
        process.libc().sigaltstack(ctypes.byref(stack), None)
        del self._view
        self._memory.close()
