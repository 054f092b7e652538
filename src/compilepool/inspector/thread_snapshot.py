"""Copies the registers and the stack of a running thread, while ptrace stops it for a moment.

A system call that the thread waits in goes on, except for the calls that fail with EINTR after a
stop, signal(7): epoll_wait, semop and sigtimedwait among them. Python repeats its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import time
from typing import Any, NamedTuple

from compilepool.inspector.registers import Registers
from compilepool.inspector.target import DEAD, Target
from compilepool.linux.process import libc

_PTRACE_GETREGS, _PTRACE_DETACH, _PTRACE_SEIZE, _PTRACE_INTERRUPT = 12, 17, 0x4206, 0x4207
_WALL = 0x40000000  # __WALL of waitpid(2): wait for threads, too
_EVENT_STOP = 128  # PTRACE_EVENT_STOP, ptrace(2)

_STOP_BOUND_S = 0.2
"""The seconds that a thread may take to stop. It stops when it gets a CPU."""

_STOP_BOUND_IN_KERNEL_S = 0.01
"""The seconds that a thread in uninterruptible sleep may take to stop. It may never do."""

STACK_COPIED = 256 * 1024  # bytes from the stack pointer on
_RED_ZONE = 128  # bytes below the stack pointer that a function may use, System V ABI, AMD64

_NAMES = (  # struct user_regs_struct, <sys/user.h>
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
    *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss"),
    *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
)


class NotStopped(Exception):
    """A thread did not stop in time."""


class ThreadSnapshot(NamedTuple):
    """The registers and the stack of a thread at one moment.

    Attributes:
        registers: all registers, or only pc and stack pointer.
        stack_start: the address of the first byte of `stack`.
        stack: the content of the stack; empty if it was not copied.
    """

    registers: Registers
    stack_start: int = 0
    stack: bytes = b""


class Tracer:
    """Copies threads of one process by ptrace.

    A thread that does not stop in time is let go when it stops, or when the inspector ends.

    Args:
        target: the process.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        # SIGCHLD announces stops. `sigtimedwait` can only wait for a blocked signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        self._late: set[int] = set()

    def take(self, tid: int) -> ThreadSnapshot:
        """Copy a thread, which is stopped for about 100 µs.

        Raises:
            NotStopped: the thread did not stop in time.
            ProcessLookupError: the thread or the process has ended.
            OSError: ptrace is refused.
        """
        try:
            _ptrace(_PTRACE_SEIZE, tid)
        except PermissionError:
            if self._target.state(tid) in DEAD:  # ptrace says EPERM for a dead thread, too
                raise ProcessLookupError(tid) from None
            raise
        is_ours = self._is_ours(tid)
        status = self._stop(tid)
        try:
            if not is_ours:
                raise ProcessLookupError(tid)
            return self._copy(tid)
        finally:
            _detach(tid, status)

    def let_go(self) -> None:
        """Let go of the threads that have stopped too late."""
        for tid in list(self._late):
            status = _wait(tid)
            if status is not None:
                self._late.discard(tid)
                _detach(tid, status)

    def _is_ours(self, tid: int) -> bool:
        # Once a thread is seized, its id cannot be recycled. It may have been recycled before.
        in_process = os.path.exists(f"/proc/{self._target.pid}/task/{tid}")
        return in_process and self._target.is_alive()

    def _stop(self, tid: int) -> int:
        self._late.add(tid)
        # The thread is dead, and its status can be waited for.
        with contextlib.suppress(ProcessLookupError):
            _ptrace(_PTRACE_INTERRUPT, tid)
        is_in_kernel = self._target.state(tid) == "D"
        bound_s = _STOP_BOUND_IN_KERNEL_S if is_in_kernel else _STOP_BOUND_S
        deadline = time.monotonic() + bound_s
        while (status := _wait(tid)) is None:
            patience_s = deadline - time.monotonic()
            if patience_s <= 0:
                raise NotStopped(f"it did not stop within {bound_s * 1000:.0f} ms")
            signal.sigtimedwait([signal.SIGCHLD], patience_s)
        self._late.discard(tid)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError(tid)
        return status

    def _copy(self, tid: int) -> ThreadSnapshot:
        values = (ctypes.c_ulong * len(_NAMES))()
        _ptrace(_PTRACE_GETREGS, tid, values)
        registers = Registers.by_name(dict(zip(_NAMES, values, strict=True)))
        start = registers.sp - _RED_ZONE
        return ThreadSnapshot(registers, start, self._target.read(start, STACK_COPIED))


def _wait(tid: int) -> int | None:
    try:
        found, status = os.waitpid(tid, os.WNOHANG | _WALL)
    except ChildProcessError:
        return 0  # as if the thread had exited
    return status if found else None


def _detach(tid: int, status: int) -> None:
    if not os.WIFSTOPPED(status):
        return
    # The thread may have stopped because of a signal, which must then be delivered. A stop that
    # this process caused has none.
    number = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
    with contextlib.suppress(ProcessLookupError):  # the thread was killed in the meantime
        _ptrace(_PTRACE_DETACH, tid, number)


@functools.cache
def _libc_ptrace() -> Any:
    function = libc().ptrace
    function.restype = ctypes.c_long
    return function


def _ptrace(request: int, tid: int, data: Any = None) -> None:
    argument = ctypes.c_void_p(data) if isinstance(data, int) else data
    if _libc_ptrace()(ctypes.c_long(request), ctypes.c_int(tid), None, argument) == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
