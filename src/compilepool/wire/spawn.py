"""Starting a process of ours by exec, never by fork: the caller may have threads."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence

FIRST_FD = 3
"""The number that the first of the handed-on descriptors has in the new process."""

_ABOVE_ALL_TARGETS = 64
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def python_command(flags: Sequence[str], process: str, script: str = "__main__.py") -> list[str]:
    """The command that runs `compilepool/<process>/<script>`, with interpreter flags.

    It is run by path, not by `-m`: that needs neither the site module nor a `sys.path`.

    Raises:
        OSError: this interpreter does not know its own executable (it is embedded).
    """
    if not sys.executable:
        raise OSError("sys.executable is not set: compilepool cannot start its processes")
    path = os.path.join(_PACKAGE_ROOT, "compilepool", process, script)
    return [sys.executable, *flags, path]


def spawn(command: Sequence[str], env: Mapping[str, str], fds: Sequence[int]) -> int:
    """Start a process in a session of its own, all signals at their defaults and unblocked.

    Args:
        command: program and arguments.
        env: its environment.
        fds: descriptors that it gets, numbered from `FIRST_FD` on. Close-on-exec keeps out others.

    Returns:
        Its pid, a child of the calling process.

    Raises:
        OSError: it could not be started.
    """
    import fcntl  # not everywhere, and this module is to be imported everywhere

    with contextlib.ExitStack() as stack:
        # Jobs must not eat what is typed at the user's terminal.
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        ]
        for target, fd in enumerate(fds, FIRST_FD):
            # A source must not be overwritten as a target before its turn.
            source = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_ALL_TARGETS)
            stack.callback(os.close, source)
            actions.append((os.POSIX_SPAWN_DUP2, source, target))
        try:
            return os.posix_spawn(
                command[0],
                list(command),
                env,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=[
                    number
                    for number in signal.valid_signals()
                    if number not in (signal.SIGKILL, signal.SIGSTOP)
                ],
            )
        except ValueError as error:  # a NUL, or what the file system's encoding lacks
            raise OSError(errno.EINVAL, str(error)) from None
