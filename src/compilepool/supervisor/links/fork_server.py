"""The supervisor's end of one fork server: its socket, its pidfd and its crash file."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterable

from compilepool.linux import pidfds
from compilepool.supervisor.fork_server_start import ForkServerProcess
from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import Channel, Outbox
from compilepool.wire.loaded_files import LoadedFile
from compilepool.wire.messages import Kind, Message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.python_stack import last_crash

_LIMIT = 32 * 1024  # bytes of the crash file that are read
_KILL_S = 5.0  # SIGKILL takes less, except in uninterruptible sleep


class CrashFile:
    """The memfd that faulthandler in a fork server writes to. It outlives the process.

    Args:
        fd: the descriptor of the memfd, which this object closes.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def text(self) -> str:
        """What faulthandler has written about the last crash; empty if there was none."""
        start = max(0, os.fstat(self.fd).st_size - _LIMIT)
        return last_crash(os.pread(self.fd, _LIMIT, start).decode(errors="replace"))

    def close(self) -> None:
        os.close(self.fd)


class ForkServerLink:
    """One fork server process.

    Args:
        loop: the event loop.
        config: the pool's configuration, which is sent to the fork server.
        process: the fork server's process, which waits for the configuration.
        on_messages: called with this link when the fork server has sent something or is dead.
    """

    def __init__(
        self,
        loop: Loop,
        config: PoolConfig,
        process: ForkServerProcess,
        on_messages: Callable[[ForkServerLink], None],
    ) -> None:
        self._loop = loop
        self._is_buried = False
        self.is_ready = False
        self.is_leaving = False
        """Whether the fork server ends when its last worker has ended."""
        self.is_ending = False
        """Whether the fork server was told to end, or was killed."""
        self.workers: set[int] = set()
        """The numbers of the fork server's workers, and of those that it was asked to start."""
        self.ready_at = 0.0
        """The time at which the preload was done, by `time.monotonic()`."""
        self.loaded_files: list[LoadedFile] = []
        """What its process has told of the files that it has loaded modules from."""
        self.importing = ""
        """The module that the fork server is preloading; empty if none."""
        self._crash_file = CrashFile(process.crash_fd)
        self.channel = Channel(process.socket)
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self._outbox = Outbox(self.channel)
        payload = config.payload()
        self.send(payload.message(Kind.SERVE))
        on_readable = functools.partial(on_messages, self)
        loop.watch(self.channel.fileno(), on_readable)
        # The channel alone is not enough: if a preload module has forked a child, that child holds
        # the socket open.
        loop.watch(self.pidfd, on_readable)

    def send(self, message: Message) -> None:
        """Queue a message, and send what the socket takes. Takes over the descriptors."""
        self._outbox.put(message)
        self._write()

    @property
    def is_dead(self) -> bool:
        """Whether the process is dead."""
        return pidfds.wait_dead(self.pidfd, 0)

    def end_input(self) -> None:
        """Close the fork server's input. It then exits with all processes below it."""
        self.is_ending = True
        self.channel.shutdown_output()

    def kill(self) -> None:
        """Kill the fork server, unless it is buried."""
        self.is_ending = True
        if not self._is_buried:
            pidfds.send_signal(self.pidfd, signal.SIGKILL)

    def finish(self, patience_s: float) -> None:
        """Close the fork server's input, and wait until it is dead, at most `patience_s`."""
        self._loop.forget(self.channel.fileno())
        self.channel.shutdown_output()
        pidfds.wait_dead(self.pidfd, patience_s)

    def bury(
        self, keep: Iterable[int] = (), patience_s: float = 0.0
    ) -> tuple[int | None, str, list[int]]:
        """Kill the fork server if it lives, reap it, and kill the processes that it leaves.

        Args:
            keep: the PIDs of other children of this process, which stay alive.
            patience_s: how long the fork server may first take to end by itself, in seconds.

        Returns:
            The exit code, or the negated signal number, or None if unknown; faulthandler's report
            of the crash; and the PIDs of the processes that cannot be killed.
        """
        self._is_buried = self.is_ending = True
        self._loop.forget(self.channel.fileno())
        self._loop.forget(self.pidfd)
        if not pidfds.wait_dead(self.pidfd, patience_s):
            pidfds.send_signal(self.pidfd, signal.SIGKILL)
        pidfds.wait_dead(self.pidfd, _KILL_S)
        exitcode = pidfds.reap(self.pidfd)
        return exitcode, self._crash_file.text(), pidfds.sweep(keep)

    def close(self) -> None:
        """Close all descriptors, after `bury`."""
        self._outbox.clear()
        self.channel.close()
        self._crash_file.close()
        os.close(self.pidfd)

    def _write(self) -> None:
        try:
            self._outbox.flush()
        except ConnectionError:
            return  # it is dead, and its pidfd wakes the loop
        if not self._is_buried:
            self._loop.watch_writable(self.channel.fileno(), self._write if self._outbox else None)
