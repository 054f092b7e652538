"""Starts fork servers. The first one starts before this process has imported its other modules."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import os

from compilepool.linux.spawn import process_command, spawn

TYPE_CHECKING = False

if TYPE_CHECKING:  # see `linux.spawn`
    from collections.abc import Sequence

_MODULE = "compilepool.forkserver.server"


class ForkServerProcess:
    """A fork server process, which imports its modules and waits for its configuration.

    Attributes:
        python_flags: the flags of its interpreter.
        pid: its PID.
        socket: the supervisor's end of the link to it.
        crash_fd: the memfd that faulthandler writes a crash to. It outlives the process.

    Raises:
        OSError: the process could not be started.
    """

    def __init__(self, python_flags: Sequence[str], client_pidfd: int, fd_limit: int) -> None:
        self.python_flags = python_flags
        command = process_command([*python_flags, "-P"], _MODULE)
        # The name shows in /proc/PID/fd.
        self.crash_fd = os.memfd_create("compilepool crash of fork server", os.MFD_CLOEXEC)
        try:
            self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            os.close(self.crash_fd)
            raise
        try:
            own_pidfd = os.pidfd_open(os.getpid())
        except OSError:
            self.discard()
            theirs.close()
            raise
        fds = (theirs.fileno(), own_pidfd, client_pidfd, self.crash_fd)
        try:
            self.pid = spawn([*command, str(os.getpid()), str(fd_limit)], os.environ, fds)
        except OSError:
            self.discard()
            raise
        finally:
            theirs.close()
            os.close(own_pidfd)

    def discard(self) -> None:
        """Close the link, so that the process exits. It is not reaped here."""
        self.socket.close()
        os.close(self.crash_fd)


class ForkServerStarter:
    """Starts the fork servers of one pool.

    Args:
        client_pidfd: the client's pidfd, which the fork servers watch.
        fd_limit: the soft limit of open files for fork servers and workers.
    """

    def __init__(self, client_pidfd: int, fd_limit: int) -> None:
        self._client_pidfd = client_pidfd
        self._fd_limit = fd_limit
        self._ahead: ForkServerProcess | None = None

    def start_ahead(self, python_flags: Sequence[str]) -> None:
        """Start a fork server that the next `start` returns. If that fails, `start` tries again."""
        try:  # noqa: SIM105 - `contextlib` takes long to import
            self._ahead = self._start(python_flags)
        except OSError:
            pass

    def start(self, python_flags: Sequence[str]) -> ForkServerProcess:
        """Start a fork server. Raises OSError if that fails."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.python_flags == python_flags:
            return ahead
        if ahead is not None:  # no client of this package changes its flags
            ahead.discard()
        return self._start(python_flags)

    def _start(self, python_flags: Sequence[str]) -> ForkServerProcess:
        return ForkServerProcess(python_flags, self._client_pidfd, self._fd_limit)
