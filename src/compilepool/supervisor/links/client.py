"""The supervisor's view of one client: its connection, its lease and its jobs."""

from __future__ import annotations

import contextlib
import select

from compilepool.supervisor.links.loop import Callback, Loop
from compilepool.wire.channel import Channel, Outbox
from compilepool.wire.messages import Message


class ClientLink:
    """A client. Its lease is its life: the pidfd tells its death even where some other process
    holds a copy of its socket and so hides the end of file.
    """

    def __init__(
        self, loop: Loop, channel: Channel, pidfd: int, on_messages: Callback, on_gone: Callback
    ) -> None:
        self._loop = loop
        self._outbox = Outbox(channel)
        self._on_gone = on_gone
        self.channel = channel
        self.pidfd = pidfd
        self.jobs: dict[int, int] = {}
        """The supervisor's number of each unfinished job, by the client's."""
        loop.watch(channel.fileno(), on_messages)
        loop.watch(pidfd, on_gone)

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
        poll.register(self.pidfd, select.POLLIN)
        with contextlib.suppress(OSError):
            self._outbox.flush()
            while self._outbox and all(fd != self.pidfd for fd, _ in poll.poll()):
                self._outbox.flush()

    def _write(self) -> None:
        try:
            self._outbox.flush()
        except OSError:
            self._on_gone()
            return
        self._loop.watch_writable(self.channel.fileno(), self._write if self._outbox else None)
