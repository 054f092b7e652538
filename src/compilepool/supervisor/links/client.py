"""The supervisor's end of the connection to one client."""

from __future__ import annotations

import contextlib
import os
import select

from compilepool.linux.pidfds import pid_of
from compilepool.supervisor.links.loop import Callback, Loop
from compilepool.wire.channel import Channel, Outbox
from compilepool.wire.messages import Message

_MAX_WAITING = 256 << 20  # bytes


class ClientLink:
    """The connection to one client.

    The loop watches the client's pidfd besides the socket. If another process holds a copy of the
    client's socket, the socket shows no end of file when the client dies.

    Args:
        loop: the event loop.
        channel: the socket.
        pidfd: the client's pidfd.
    """

    def __init__(self, loop: Loop, channel: Channel, pidfd: int) -> None:
        self._loop = loop
        self._outbox = Outbox(channel)
        self._pidfd = pidfd
        self._on_gone: Callback | None = None
        self.channel = channel

    @property
    def pid(self) -> int:
        """The client's PID; -1 if it is dead or cannot be told."""
        return pid_of(self._pidfd)

    def watch(self, on_messages: Callback, on_gone: Callback) -> None:
        """Call back when the client has sent something, and when it is gone."""
        self._on_gone = on_gone
        self._loop.watch(self.channel.fileno(), on_messages)
        self._loop.watch(self._pidfd, on_gone)

    def forget(self) -> None:
        """Stop calling back, because the client has left."""
        self._on_gone = None
        self._loop.forget(self.channel.fileno())
        self._loop.forget(self._pidfd)

    def close(self) -> None:
        """Close the descriptors, after `forget`."""
        self._outbox.clear()
        self.channel.close()
        os.close(self._pidfd)

    def send(self, message: Message) -> None:
        """Queue a message. Takes over its descriptors."""
        self._outbox.put(message)

    def is_behind(self, max_fds: int) -> bool:
        """Whether the client has not read for so long that too much waits for it.

        Args:
            max_fds: the most descriptors that may wait.
        """
        return self._outbox.waiting_bytes > _MAX_WAITING or self._outbox.waiting_fds > max_fds

    @property
    def has_unsent(self) -> bool:
        """Whether messages are queued."""
        return bool(self._outbox)

    def flush(self) -> None:
        """Send what the socket takes now. The loop sends the rest."""
        if self._outbox:
            self._write()

    def flush_finally(self) -> None:
        """Send all that is queued. Waits while the client lives and its socket is full."""
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLOUT)
        poll.register(self._pidfd, select.POLLIN)
        with contextlib.suppress(OSError):
            self._outbox.flush()
            while self._outbox and all(fd != self._pidfd for fd, _ in poll.poll()):
                self._outbox.flush()

    def _write(self) -> None:
        try:
            self._outbox.flush()
        except OSError:
            if self._on_gone is not None:
                self._on_gone()
            return
        self._loop.watch_writable(self.channel.fileno(), self._write if self._outbox else None)
