"""Starts a process of ours by posix_spawn(3), never by fork: the caller may have threads."""

from __future__ import annotations

import _signal  # `signal` wraps it in enums, which takes long
import errno
import itertools
import os
import sys

TYPE_CHECKING = False

# The supervisor imports this module first, and `collections` takes long to import.
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_FD = 3
"""The number of the first passed descriptor in the new process."""

_ENTRY = "entry.py"

PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The folder that contains this package."""


def is_pool_process() -> bool:
    """Whether this process is a process of a pool, or was forked from one.

    A tool may have put words of its own into the command, and this package need not be the copy
    that the process was started with.
    """
    return _IS_POOL_PROCESS


def _runs_entry(command: list[str]) -> bool:
    entry = os.path.join("compilepool", _ENTRY)
    return any(
        script.endswith(entry) and module.startswith("compilepool.")
        for script, module in itertools.pairwise(command)
    )


_IS_POOL_PROCESS = _runs_entry(sys.orig_argv)
"""Found once: each job asks, and a command may have thousands of words."""


def process_command(flags: Sequence[str], module: str) -> list[str]:
    """The command that runs the `main` function of one of our modules in a new interpreter.

    Args:
        flags: the interpreter's flags.
        module: the module's full name.

    Raises:
        OSError: `sys.executable` is not an interpreter, or the package is not a folder of files.
    """
    return [*script_command(flags, _ENTRY), module]


def script_command(flags: Sequence[str], script: str) -> list[str]:
    """The command that runs a file of this package by its path, which needs no `sys.path`.

    Args:
        flags: the interpreter's flags.
        script: the file's path in the package.

    Raises:
        OSError: `sys.executable` is not an interpreter, or the package is not a folder of files.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError(
            "sys.executable is no Python interpreter (this program is frozen, or embeds Python),"
            " and compilepool needs one for its processes"
        )
    path = os.path.join(PACKAGE_ROOT, "compilepool", script)
    if not os.path.exists(path):
        raise OSError(f"{path} is not a file: compilepool must be installed unzipped")
    return [sys.executable, *flags, path]


def spawn(command: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    """Start a process in its own session, with all signals at their defaults and unblocked.

    Args:
        command: the program and its arguments.
        env: the environment.
        fds: the descriptors that the process gets, numbered from `FIRST_FD` on. Of this process's
            others, it gets only 0, 1 and 2.

    Returns:
        The PID of the process, a child of the calling process.

    Raises:
        OSError: the process could not be started.
    """
    import fcntl  # not every platform has it, and this module can be imported on any

    sources: list[int] = []
    try:
        for fd in fds:
            # Duplicate the sources above all targets, so that no source is overwritten before its
            # turn.
            sources.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(fds)))
        # Here, and not in the new process: a debugger or profiler there may open descriptors of its
        # own before any line of ours runs. After the sources are open: else one of them might get
        # the number of a descriptor that another thread has just closed, and be closed for it.
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_fds()
        ]
        # Jobs must not read what the user types at the terminal.
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        for output in (1, 2):
            if not _is_inheritable(output):
                # Otherwise the first file that the new process opens would become its output.
                actions.append((os.POSIX_SPAWN_OPEN, output, os.devnull, os.O_WRONLY, 0))
        for target, source in enumerate(sources, FIRST_FD):
            actions.append((os.POSIX_SPAWN_DUP2, source, target))
        return os.posix_spawn(
            command[0],
            list(command),
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP},
        )
    except ValueError as error:  # a NUL, or a character that the file system's encoding lacks
        raise OSError(errno.EINVAL, str(error)) from None
    finally:
        for source in sources:
            os.close(source)


def _inheritable_fds() -> list[int]:
    """The descriptors above 2 that survive exec, because the program made them inheritable.

    In another process, they would keep the program's pipes and sockets open.
    """
    import resource

    # Since the program lowered its limit, glibc refuses the descriptors above it.
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    end = sys.maxsize if limit == resource.RLIM_INFINITY else limit
    numbers = map(int, os.listdir("/proc/self/fd"))
    return [fd for fd in numbers if 2 < fd < end and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
