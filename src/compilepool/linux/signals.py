"""Signal handling that the standard library lacks: handlers in C, and alternate stacks.

The structures have the layout of glibc and musl on x86-64 and aarch64, sigaction(2),
sigaltstack(2). Workers use it.
"""

from __future__ import annotations

import ctypes
import mmap
import signal

from compilepool.linux import process

DUMP_SIGNAL = signal.SIGRTMAX - 3
"""The signal on which a worker writes the Python traceback of all threads to its crash socket."""

_SA_ONSTACK = 0x08000000  # SA_ONSTACK, the same on x86-64 and aarch64
_SS_DISABLE = 2  # sigaltstack(2)
# A sigset_t has 1024 bits in glibc and musl.
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


def handle_by_libc(number: int, function: str) -> None:
    """Make a function of libc the handler of a signal.

    The function gets the signal's number as its argument. It runs on the alternate stack if there
    is one, with every signal blocked that can be blocked.

    Args:
        number: the signal's number.
        function: the function's name.

    Raises:
        OSError: the kernel refused.
    """
    libc = process.libc()
    action = _Sigaction()
    action.handler = ctypes.cast(getattr(libc, function), ctypes.c_void_p).value
    action.flags = _SA_ONSTACK
    action.mask[:] = [ctypes.c_ulong(-1).value] * _SIGSET_WORDS
    if libc.sigaction(number, ctypes.byref(action), None) != 0:
        raise process.libc_error(f"sigaction({number})")


class AlternateStack:
    """A stack for this thread's signal handlers, which they need when its own has overflowed.

    The thread that made it closes it before it ends.

    Args:
        size: the size in bytes.

    Raises:
        OSError: there is no memory for it, or the kernel refused it.
    """

    def __init__(self, size: int) -> None:
        # The mapping is private, so a child that a job forks has its own stack at the same address.
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = ctypes.c_char.from_buffer(self._memory)
        stack = _Stack(ctypes.addressof(self._view), 0, size)
        if process.libc().sigaltstack(ctypes.byref(stack), None) != 0:
            error = process.libc_error("sigaltstack")
            self.close()
            raise error

    def close(self) -> None:
        stack = _Stack(None, _SS_DISABLE, 0)
        process.libc().sigaltstack(ctypes.byref(stack), None)
        del self._view
        self._memory.close()
