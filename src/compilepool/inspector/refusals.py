"""Explains why the kernel does not let one process inspect another, ptrace(2).

Each explanation says what would allow it.
"""

from __future__ import annotations

import contextlib
import os

from compilepool.inspector.target import Target
from compilepool.linux import proc

_FILTERED = "2"  # Seccomp in /proc/PID/status, proc(5)
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_CAPABILITY = "allow it with --cap-add SYS_PTRACE, or as root"


def why_ptrace_refused(target: Target, error: OSError) -> str:
    """The reason why ptrace failed although the memory could be read.

    The kernel checks the same permission for both, so the reason is one that concerns ptrace alone.
    """
    tracer = target.status(target.pid, "TracerPid")
    if tracer not in ("", "0"):
        return f"ptrace was refused ({error.strerror}): process {tracer} (a debugger?) traces it"
    if proc.status_field("Seccomp") == _FILTERED:
        return (
            f"ptrace was refused ({error.strerror}): a seccomp filter (of the container) forbids"
            " it; allow it with --cap-add SYS_PTRACE, or another seccomp profile"
        )
    return f"ptrace was refused ({error.strerror}){_yama()}; {_CAPABILITY}"


def why_memory_refused(target: Target, error: OSError) -> str:
    """The reason why `/proc/PID/mem` or a similar file could not be opened."""
    what = f"{error.filename or '/proc/PID/mem'} cannot be read ({error.strerror})"
    if not isinstance(error, PermissionError):
        return what
    if target.status(target.pid, "Uid").split()[:1] != [str(os.getuid())]:
        return f"{what}: the process runs as another user; {_CAPABILITY}"
    undumpable = ": it has changed its user, or made itself undumpable, prctl(2)"
    return f"{what}{_yama() or undumpable}; {_CAPABILITY}"


def _yama() -> str:
    with contextlib.suppress(OSError), open(_YAMA) as file:
        scope = file.read().strip()
        if scope != "0":
            return f": kernel.yama.ptrace_scope is {scope}"
    return ""
