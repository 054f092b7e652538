"""The probes of `compilepool doctor`: checks that a sandbox may answer by killing the process.

`main` runs one probe, in a short-lived process of its own.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from compilepool.linux import process, requirements
from compilepool.linux.spawn import process_command

State: TypeAlias = Literal["ok", "limited", "missing"]
Answer: TypeAlias = tuple[State, str]
"""The state of a thing; and its version or place, or the reason why it does not work."""

_PTRACE_SEIZE = 0x4206  # <linux/ptrace.h>
_CLONE_NEWUSER = 0x10000000  # <linux/sched.h>
_CLONE_NEWPID = 0x20000000

_PROBE_PATIENCE_S = 5.0


def main() -> None:
    """Run one probe: `entry.py compilepool.cli.doctor.probes PROBE [PID]`.

    The process prints a detail, and exits with 0 if the thing works.
    """
    try:
        print(_PROBES[sys.argv[1]](*map(int, sys.argv[2:])))
    except OSError as error:
        sys.exit(error.strerror or str(error))
    except (requirements.KernelTooOld, AttributeError) as error:
        # AttributeError: Python was built on a system without the function.
        sys.exit(str(error))


def _try_platform() -> str:
    requirements.check_platform()
    return f"Linux {os.uname().release}, Python {sys.version.split()[0]}"


def _try_memfds() -> str:
    import fcntl

    fd = os.memfd_create("compilepool doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"payload")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    return "memfd_create, with seals"


def _try_pidfds() -> str:
    signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 0)
    return "pidfd_open and pidfd_send_signal"


def _be_looked_at() -> str:
    """Be to a probe what a worker is to the supervisor's inspector, until the input ends."""
    process.allow_ptrace(os.getppid())
    print("ready", flush=True)
    return sys.stdin.read()


def _try_ptrace(pid: int) -> str:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.restype = ctypes.c_long
    _check(ptrace(_PTRACE_SEIZE, pid, None, None))  # the end of this process detaches it
    return "works"


def _try_memory(pid: int) -> str:
    maps = Path(f"/proc/{pid}/maps").read_text()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(int(maps.partition("-")[0], 16))
        if len(memory.read(8)) < 8:
            raise OSError("nothing could be read")
    return "/proc/PID/mem can be read"


def _try_pid_namespace() -> str:
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    how = "can be made"
    if unshare(_CLONE_NEWPID) != 0:
        how = "can be made in a user namespace"
        _check(unshare(_CLONE_NEWUSER | _CLONE_NEWPID))
    pid = os.fork()
    if pid == 0:
        os._exit(os.getpid())
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 1:
        raise OSError("the first process of a new one was not number 1")
    return how


_PROBES: dict[str, Callable[..., str]] = {
    "platform": _try_platform,
    "memfds": _try_memfds,
    "pidfds": _try_pidfds,
    "be looked at": _be_looked_at,
    "ptrace": _try_ptrace,
    "memory": _try_memory,
    "pid namespace": _try_pid_namespace,
}


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _probe_command(name: str, *pid: int) -> list[str]:
    return [*process_command(["-I", "-S"], __name__), name, *map(str, pid)]


def probe(name: str, *pid: int) -> Answer:
    """Run a probe in a process of its own.

    Args:
        name: a key of `_PROBES`.
        pid: the PID of the process to look at, if the probe looks at one.

    Raises:
        OSError: the process cannot be started.
    """
    exitcode, output = run_command(_probe_command(name, *pid), _PROBE_PATIENCE_S)
    if exitcode is None:
        return "missing", f"no answer in {_PROBE_PATIENCE_S:g} s"
    if exitcode < 0:
        return "missing", f"the process that tries it is killed: {signal.strsignal(-exitcode)}"
    return "missing" if exitcode else "ok", output.strip().rpartition("\n")[2]


def probe_sibling(name: str) -> Answer:
    """Run a probe that looks at a sibling process, as an inspector looks at a worker.

    An inspector is not the parent of the worker, which matters to Yama's ptrace_scope.

    Args:
        name: a key of `_PROBES`.

    Raises:
        OSError: one of the two processes cannot be started.
    """
    with subprocess.Popen(
        _probe_command("be looked at"),
        stdin=subprocess.PIPE,  # the target ends when this closes, also by this process's death
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as target:
        try:
            assert target.stdout is not None
            is_there, _, _ = select.select([target.stdout], [], [], _PROBE_PATIENCE_S)
            if not (is_there and target.stdout.readline()):
                return "missing", "a process to look at did not start"
            return probe(name, target.pid)
        finally:
            target.kill()


def run_command(command: list[str], patience_s: float) -> tuple[int | None, str]:
    """Run a command to its end, for a limited time.

    Args:
        command: the program and its arguments.
        patience_s: the time, in seconds, after which the command and its children are killed.

    Returns:
        The exit code, or None if the command was killed; and the output, error output included.

    Raises:
        OSError: the command cannot be started.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the PID is not reused
            return None, ""
    return process.returncode, output
