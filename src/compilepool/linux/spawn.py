"""Starting a process of ours by exec, never by fork: the caller may have threads."""

from __future__ import annotations

import _signal  # `signal` makes enums of it, which takes long
import errno
import os
import sys

TYPE_CHECKING = False

if TYPE_CHECKING:  # the supervisor imports this before all else, and `collections` takes long
    from collections.abc import Mapping, Sequence

FIRST_FD = 3
"""The number that the first of the handed-on descriptors has in the new process."""

_ENTRY = "entry.py"

PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def is_pool_process() -> bool:
    """Whether this process was started by a pool, as one of its own, or was forked from such."""
    return os.path.join(PACKAGE_ROOT, "compilepool", _ENTRY) in sys.orig_argv


def process_command(flags: Sequence[str], module: str) -> list[str]:
    """The command that runs the `main` of a module of ours in a new interpreter.

    Raises:
        OSError: there is no interpreter to run it, or no file.
    """
    return [*script_command(flags, _ENTRY), module]


def script_command(flags: Sequence[str], script: str) -> list[str]:
    """The command that runs a file of this package, by path: that needs no `sys.path`.

    Raises:
        OSError: there is no interpreter to run it, or no file.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError(
            "sys.executable is no Python interpreter (this program is frozen, or embeds Python),"
            " and compilepool needs one for its processes"
        )
    path = os.path.join(PACKAGE_ROOT, "compilepool", script)
    if not os.path.exists(path):
        raise OSError(f"{path} is no file: compilepool must be installed unzipped")
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

    # Jobs must not eat what is typed at the user's terminal.
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    for output in (1, 2):
        if not _is_inheritable(output):
            # Else the first descriptor that the new process opens would be its output.
            actions.append((os.POSIX_SPAWN_OPEN, output, os.devnull, os.O_WRONLY, 0))
    sources: list[int] = []
    try:
        for target, fd in enumerate(fds, FIRST_FD):
            # A source must not be overwritten as a target before its turn.
            source = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(fds))
            sources.append(source)
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
    except ValueError as error:  # a NUL, or what the file system's encoding lacks
        raise OSError(errno.EINVAL, str(error)) from None
    finally:
        for source in sources:
            os.close(source)


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False
