"""The registers of a crash, from the frame that the kernel has pushed for its signal handler.

No ptrace is needed for that, so it works where containers forbid it. A thread that has crashed
sleeps in a handler (see `compilepool.worker.parking`). Its stack, from the top:

    sleep                       called as the handler of a signal that was raised
    frame of the raised signal
    raise
    faulthandler's handler      missing in a second thread that crashes of the same signal
    frame of the fault
    what has crashed

x86-64. Layout: `struct rt_sigframe` in arch/x86/include/asm/sigframe.h, `struct ucontext` in
include/uapi/asm-generic/ucontext.h and `struct sigcontext_64` in
arch/x86/include/uapi/asm/sigcontext.h of Linux.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from compilepool.inspector.registers import Registers
from compilepool.inspector.target import Target

_SLEEPS = (230, 35, 219)
"""clock_nanosleep, nanosleep, and restart_syscall, as which they go on after a stop of the thread:
<asm/unistd_64.h>, restart_syscall(2)."""

_SLEEP_WINDOW = 4 * 1024
_HANDLER_WINDOW = 8 * 1024
"""Bytes of stack in which the next signal frame must begin: what `sleep`, or what faulthandler's
handler and `raise` have pushed."""

_RESTORER = bytes.fromhex("48c7c00f0000000f05")
"""mov $15, %rax; syscall: where handlers return to, in glibc and musl, rt_sigreturn(2)."""

_SYSCALL = bytes.fromhex("0f05")

_FRAME = struct.Struct("<Q QQQQQ 23Q Q")
"""pretcode; flags, link and stack of the ucontext; its registers; address of the FPU's state."""

_NAMES = (
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags"),
    *("segments", "err", "trapno", "oldmask", "cr2"),
)
_USER_CODE_SEGMENT = 0x33

_PAGE_FAULT = 14  # Intel SDM 3A, 6.15
_WRITE = 1 << 1
_EXECUTE = 1 << 4


class Fault(NamedTuple):
    """What a signal has interrupted.

    Attributes:
        registers: at that moment.
        trap: the number of the processor's exception; None if the signal was sent.
        address: what was accessed, of a page fault.
        access: "read", "write" or "execute", of a page fault.
        has_traceback: whether faulthandler has handled it: the first of its signal.
    """

    registers: Registers
    trap: int | None
    address: int | None
    access: str | None
    has_traceback: bool


def find_fault(target: Target, tid: int) -> Fault | None:
    """The fault of a thread that has parked; None if it has not.

    Raises:
        PermissionError: this process may not know.
    """
    call = target.system_call(tid)
    if call is None or call.number not in _SLEEPS:
        return None
    raised = _find_frame(target, call.registers.sp, _SLEEP_WINDOW)
    if raised is None:
        return None
    fault = _find_frame(target, raised["rsp"], _HANDLER_WINDOW)
    return _fault(target, fault or raised, has_traceback=fault is not None)


def _find_frame(target: Target, sp: int, window: int) -> dict[str, int] | None:
    stack = target.read(sp, window + _FRAME.size)
    for offset in range(0, len(stack) - _FRAME.size + 1, 8):
        pretcode, _, link, *_, fpu_state = fields = _FRAME.unpack_from(stack, offset)
        registers = dict(zip(_NAMES, fields[6:], strict=False))
        if (
            link == 0
            and registers["segments"] & 0xFFFF == _USER_CODE_SEGMENT
            and fpu_state > sp + offset
            and target.read(pretcode, len(_RESTORER)) == _RESTORER
        ):
            return registers
    return None


def _fault(target: Target, frame: dict[str, int], *, has_traceback: bool) -> Fault:
    registers = Registers.by_name(frame)
    # Where the signal was sent, by abort() for one, the frame has the thread's last trap, of long
    # ago. It is delivered on the return from the system call.
    was_sent = target.read(registers.pc - len(_SYSCALL), len(_SYSCALL)) == _SYSCALL
    trap = None if was_sent else frame["trapno"]
    if trap != _PAGE_FAULT:
        return Fault(registers, trap, None, None, has_traceback)
    error = frame["err"]
    access = "execute" if error & _EXECUTE else "write" if error & _WRITE else "read"
    return Fault(registers, trap, frame["cr2"], access, has_traceback)
