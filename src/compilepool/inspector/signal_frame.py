"""Reads the registers of a crash from the frame that the kernel pushed for its signal handler.

That needs no ptrace, so it works in containers that forbid ptrace. A crashed thread sleeps in a
handler (see `compilepool.worker.parking`). Its stack, from the top:

    sleep                       called as the handler of a signal that was raised
    frame of the raised signal
    raise
    faulthandler's handler      missing in a second thread that crashes of the same signal
    frame of the fault
    what has crashed

The layout is that of x86-64 Linux: `struct rt_sigframe` in arch/x86/include/asm/sigframe.h, `struct
ucontext` in include/uapi/asm-generic/ucontext.h, and `struct sigcontext_64` in
arch/x86/include/uapi/asm/sigcontext.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from compilepool.inspector.registers import Registers
from compilepool.inspector.target import Target

_SLEEPS = (230, 35, 219)
"""The system calls in which a parked thread waits.

They are clock_nanosleep, nanosleep, and restart_syscall, which continues them after the thread was
stopped: <asm/unistd_64.h>, restart_syscall(2).
"""

_SLEEP_WINDOW = 4 * 1024
"""The bytes of stack above `sleep` in which the frame of the raised signal must begin."""

_HANDLER_WINDOW = 8 * 1024
"""The bytes of stack above the frame of the raised signal in which the frame of the fault must
begin.

In between is what faulthandler's handler and `raise` have pushed.
"""

_RESTORER = bytes.fromhex("48c7c00f0000000f05")
"""mov $15, %rax; syscall: the code that handlers return to in glibc and musl, rt_sigreturn(2)."""

_SYSCALL = bytes.fromhex("0f05")  # the instruction `syscall`

_FRAME = struct.Struct("<Q QQQQQ 23Q Q")
"""pretcode; flags, link and stack of the ucontext; its registers; address of the FPU's state."""

_NAMES = (
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags"),
    *("segments", "err", "trapno", "oldmask", "cr2"),
)
_USER_CODE_SEGMENT = 0x33  # __USER_CS, arch/x86/include/asm/segment.h

_PAGE_FAULT = 14  # Intel SDM volume 3A, section 6.15
_WRITE = 1 << 1  # X86_PF_WRITE, arch/x86/include/asm/trap_pf.h
_EXECUTE = 1 << 4  # X86_PF_INSTR, arch/x86/include/asm/trap_pf.h


class Fault(NamedTuple):
    """What a signal interrupted in a thread.

    Attributes:
        registers: the registers at that moment.
        trap: the number of the processor's exception; None if the signal was sent.
        address: the address that was accessed, if the exception is a page fault; else None.
        access: "read", "write" or "execute", if the exception is a page fault; else None.
        has_traceback: whether faulthandler wrote a traceback for it, as it does for the first crash
            of each signal.
    """

    registers: Registers
    trap: int | None
    address: int | None
    access: str | None
    has_traceback: bool


def find_fault(target: Target, tid: int) -> Fault | None:
    """The fault of a thread that has parked; None if the thread has not parked.

    Raises:
        PermissionError: this process may not read the thread's state.
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
    # If the signal was sent, as abort() does, it is delivered on the return from a system call. The
    # trap number in the frame is then that of an earlier trap of the thread.
    was_sent = target.read(registers.pc - len(_SYSCALL), len(_SYSCALL)) == _SYSCALL
    trap = None if was_sent else frame["trapno"]
    if trap != _PAGE_FAULT:
        return Fault(registers, trap, None, None, has_traceback)
    error = frame["err"]
    access = "execute" if error & _EXECUTE else "write" if error & _WRITE else "read"
    return Fault(registers, trap, frame["cr2"], access, has_traceback)
