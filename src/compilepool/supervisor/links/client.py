"""The supervisor's end of the connection to one client."""

from __future__ import annotations

import contextlib
import os
import select

from compilepool.supervisor.links.loop import Callback, Loop
from compilepool.wire.channel import Channel, Outbox
from compilepool.wire.messages import Message


class ClientLink:
    """The connection to a client, whose life is its lease.

    The pidfd tells of the client's death even where some other process holds a copy of the client's
    socket, and so hides the end of file.

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

    def watch(self, on_messages: Callback, on_gone: Callback) -> None:
        """Call back when the client has sent something, and when it is gone."""
        self._on_gone = on_gone
        self._loop.watch(self.channel.fileno(), on_messages)
        self._loop.watch(self._pidfd, on_gone)

    def forget(self) -> None:
        """Call back no more: the client has left."""
        self._on_gone = None
        self._loop.forget(self.channel.fileno())
        self._loop.forget(self._pidfd)

    def close(self) -> None:
        """Close the descriptors, after `forget`."""
        self._outbox.clear()
        self.channel.close()
        os.close(self._pidfd)

    def send(self, message: Message) -> None:
        """Queue a message; takes over its descriptors."""
        self._outbox.put(message)

    def flush(self) -> None:
        """Send what is queued as far as the client takes it; the loop sends the rest."""
        if self._outbox:
            self._write()

    def flush_finally(self) -> None:
        """Send what is queued, waiting for the client to take it for as long as it lives."""
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
