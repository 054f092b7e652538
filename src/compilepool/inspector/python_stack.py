"""Asks a process for its Python stack, which it writes by itself, to where the supervisor reads."""

from __future__ import annotations

from compilepool.inspector.target import Target
from compilepool.wire import kernel


def ask_for_python_stack(target: Target, number: int) -> str:
    """Signal the process if it catches the signal: otherwise that could kill it.

    Returns:
        Empty, or why no Python stack will come.
    """
    caught = target.status(target.pid, "SigCgt")
    if not _has(caught, number):
        return f"Python stack: signal {number} asks for it, and nothing catches that any more"
    if all(_has(target.status(tid, "SigBlk"), number) for tid in target.tids()):
        return f"Python stack: signal {number} asks for it, and all threads have blocked that"
    if not kernel.send_signal(target.pidfd, number):
        return f"Python stack: signal {number} could not be sent"
    if target.state(target.pid) in "Tt":
        return "Python stack: the process is stopped; it is written when the process goes on"
    return ""


def _has(mask: str, number: int) -> bool:
    return bool(int(mask or "0", 16) >> (number - 1) & 1)
