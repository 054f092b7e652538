"""The supervisor's end of the connection to one client."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque

from compilepool.linux.pidfds import pid_of
from compilepool.supervisor.links.loop import Callback, Loop, ScheduledCall
from compilepool.wire.channel import Channel, Outbox, close_all
from compilepool.wire.messages import Form, Message, ProtocolError
from compilepool.wire.payloads import Payload, of_message

_MAX_WAITING = 256 << 20  # bytes
_FIRST_RETRY_S = 0.001
_LAST_RETRY_S = 0.1


class ClientLink:
    """The connection to one client.

    The loop watches the client's pidfd besides the socket. If another process holds a copy of the
    client's socket, the socket shows no end of file when the client dies.

    The kernel limits the descriptors that a user's processes have sent and nobody has received,
    unix(7). A client that is stopped must not use them up. So what goes beyond its share is held
    here, and leaves when the client has received what was sent before. No event tells when that is,
    so a timer looks.

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
        self._max_unread_fds: int | None = None
        self._spill_above_fd: int | None = None
        self._unread_fds = 0
        """At most so many descriptors are in the outbox or on their way."""
        self._held: deque[tuple[Message, Payload | None]] = deque()
        """Each message with its payload, if that was spilled."""
        self._held_bytes = 0
        self._has_lost = False
        self._retry: ScheduledCall | None = None
        self._retry_s = _FIRST_RETRY_S
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
        if self._retry is not None:
            self._retry.cancel()
        self._loop.forget(self.channel.fileno())
        self._loop.forget(self._pidfd)

    def close(self) -> None:
        """Close the descriptors, after `forget`."""
        self._outbox.clear()
        while self._held:
            close_all(self._held.popleft()[0].fds)
        self.channel.close()
        os.close(self._pidfd)

    def limit(self, max_unread_fds: int, spill_above_fd: int) -> None:
        """Limit the descriptors that the client can keep in use by reading nothing.

        Args:
            max_unread_fds: the most that are sent before the client has received them. A message
                that has more is sent alone.
            spill_above_fd: a payload that is held is copied to memory if its descriptor is higher.
        """
        self._max_unread_fds = max_unread_fds
        self._spill_above_fd = spill_above_fd

    def send(self, message: Message) -> None:
        """Queue a message. Takes over its descriptors."""
        if self._held or self._outbox.is_short or not self._may_send(len(message.fds)):
            self._hold(message)
        else:
            self._outbox.put(message)

    @property
    def is_behind(self) -> bool:
        """Whether the client has not read for so long that too much waits for it in memory."""
        return self._has_lost or self._outbox.waiting_bytes + self._held_bytes > _MAX_WAITING

    @property
    def has_unsent(self) -> bool:
        """Whether messages are queued."""
        return bool(self._outbox or self._held)

    def flush(self) -> None:
        """Send what the socket takes now. The loop sends the rest."""
        if self._outbox or self._held:
            self._write()

    def flush_finally(self) -> None:
        """Send all that is queued. Waits while the client lives and has not read enough."""
        poll = select.poll()
        poll.register(self.channel.fileno(), 0)
        poll.register(self._pidfd, select.POLLIN)
        with contextlib.suppress(OSError):
            self._send_on()
            while self.has_unsent:
                is_full = self._is_full
                poll.modify(self.channel.fileno(), select.POLLOUT if is_full else 0)
                events = poll.poll(None if is_full else 1000 * _FIRST_RETRY_S)
                if any(fd == self._pidfd for fd, _ in events):
                    break
                self._send_on()

    @property
    def _is_full(self) -> bool:
        """Whether the socket has no room. The loop tells when it has."""
        return bool(self._outbox) and not self._outbox.is_short

    def _may_send(self, fds: int) -> bool:
        """Whether the client may be sent so many more descriptors now. Counts them if it may."""
        if not fds or self._max_unread_fds is None:
            return True
        if self._unread_fds + fds > self._max_unread_fds and self._unread_fds:
            if self._outbox.waiting_fds or self.channel.has_unread:
                return False
            self._unread_fds = 0
        self._unread_fds += fds
        return True

    def _hold(self, message: Message) -> None:
        payload = None
        limit = self._spill_above_fd
        # The kernel hands out the lowest free number, so a high one means that many are in use.
        if limit is not None and message.form is Form.MEMFD and max(message.fds, default=0) > limit:
            try:
                payload = of_message(message, len(message.body)).spill()
            except (ProtocolError, MemoryError):
                self._has_lost = True  # its job runs again when the client comes again
                return
            message = message._replace(fds=())
            self._held_bytes += len(payload.body)
        self._held_bytes += len(message.body)
        self._held.append((message, payload))

    def _write(self) -> None:
        try:
            self._send_on()
        except OSError:
            if self._on_gone is not None:
                self._on_gone()
            return
        is_full = self._is_full
        self._loop.watch_writable(self.channel.fileno(), self._write if is_full else None)
        if not self.has_unsent:
            self._retry_s = _FIRST_RETRY_S
        elif not is_full and self._retry is None:
            self._retry = self._loop.call_at(time.monotonic() + self._retry_s, self._write_again)
            self._retry_s = min(2 * self._retry_s, _LAST_RETRY_S)

    def _write_again(self) -> None:
        self._retry = None
        self._write()

    def _send_on(self) -> None:
        self._outbox.flush()
        while self._held and not self._outbox and self._release():
            self._retry_s = _FIRST_RETRY_S
            self._outbox.flush()

    def _release(self) -> bool:
        """Queue the held messages that may be sent now. Returns whether there are any."""
        before = len(self._held)
        while self._held:
            message, payload = self._held[0]
            if not self._may_send(len(message.fds) if payload is None else 1):
                break
            kind, id, flag, _, head, _ = message
            try:
                whole = message if payload is None else payload.message(kind, id, flag, head)
            except OSError:  # there is no descriptor or no memory for it now
                break
            self._held_bytes -= len(head)
            if payload is not None:
                self._held_bytes -= len(payload.body)
            del self._held[0]
            self._outbox.put(whole)
        return len(self._held) < before
