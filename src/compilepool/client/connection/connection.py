"""A connection to a supervisor: sends messages, one by one or several together."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from abc import ABC, abstractmethod

from compilepool.linux import pidfds
from compilepool.linux.descriptors import close_if_ours, opened_by
from compilepool.linux.polling import READABLE, WRITABLE, poll
from compilepool.wire.channel import Channel
from compilepool.wire.messages import MAX_PACKET, Kind, Message, Shutdown, encode

MAX_HELD = 32
"""How many messages wait to be sent together, at most."""

SMALL = MAX_PACKET // (2 * MAX_HELD)
"""How many bytes the body of a message may have that waits."""

_IN_FLIGHT_S = 5.0


class SupervisorConnection(ABC):
    """A connection to one supervisor. Its subclasses say whose process that is.

    Args:
        channel: the socket to it, which is taken over.
        pid: its PID.
        pidfd: its pidfd, which is taken over; -1 after `close`.

    Attributes:
        exitcode: its exit code after `bury`, negated signal number if a signal killed it.
        is_buried: set when `bury` has set `exitcode`.
    """

    def __init__(self, channel: Channel, pid: int, pidfd: int) -> None:
        self.channel = channel
        self.pid = pid
        self.pidfd = pidfd
        self._opened = opened_by(pidfd)
        self.exitcode: int | None = None
        self.is_buried = threading.Event()
        self._held: list[bytes] = []

    @abstractmethod
    def kill(self) -> None:
        """Have the connection end, unless it was closed. The reader then finds its end."""

    @abstractmethod
    def bury(self, patience_s: float) -> int | None:
        """Wait for the end of the connection, and see to what it leaves; within a bound.

        Args:
            patience_s: how long to wait, in seconds, before the connection is made to end.

        Returns:
            The supervisor's exit code, negated signal number if a signal killed it, None if
            unknown.
        """

    def hold(self, message: Message) -> bool:
        """Send a message together with others, later; returns and raises as `send` does.

        The caller makes sure that somebody calls `flush`.

        Args:
            message: a message without descriptors, whose body has `SMALL` bytes at most.
        """
        self._held.append(encode(message))
        return len(self._held) < MAX_HELD or self.flush()

    @property
    def has_held(self) -> bool:
        """Whether there is anything to `flush`. Any thread."""
        return bool(self._held)

    def flush(self) -> bool:
        """Send all that is held; returns and raises as `send` does.

        While this waits, a signal handler may raise, or send something itself. Even then, nothing
        is lost, and the order is kept. At worst a message is sent twice: the supervisor ignores the
        second one.
        """
        try:
            while held := self._held[:]:
                self.channel.check_is_open()
                if self.channel.send_packet(b"".join(held), (), wait=False):
                    if self._held[: len(held)] == held:  # else a signal handler has sent them, too
                        del self._held[: len(held)]
                elif not self._wait_for_room():
                    return False
        except ConnectionError:
            return False
        return True

    def send(self, message: Message) -> bool:
        """Send a message, waiting for room as long as the supervisor lives.

        Returns:
            False if it is dead.

        Raises:
            OSError: the program has too many descriptors in flight (unix(7), ETOOMANYREFS), or has
                closed ours.
        """
        return self.flush() and self._send_packet(encode(message), message.fds)

    def _send_packet(self, packet: bytes, fds: tuple[int, ...]) -> bool:
        deadline = 0.0
        self.channel.check_is_open()
        try:
            while not self.channel.send_packet(packet, fds, wait=False):
                if not self._wait_for_room():
                    return False
                # There is room, so too many descriptors are in flight, and no event tells when
                # there are fewer.
                deadline = deadline or time.monotonic() + _IN_FLIGHT_S
                if time.monotonic() > deadline:
                    raise OSError(errno.ETOOMANYREFS, "too many descriptors in flight")
                pidfds.wait_dead(self.pidfd, 0.001)
        except ConnectionError:
            return False
        return True

    def _wait_for_room(self) -> bool:
        """Wait until the socket takes something. False if the supervisor is dead."""
        events = poll()
        events.register(self.channel.fileno(), WRITABLE)
        # Its death is no event on the socket if some other process has a copy of its end.
        events.register(self.pidfd, READABLE)
        return all(fd != self.pidfd for fd, _ in events.poll())

    def request_end(self) -> None:
        """Have it end at once, with all jobs. Never waits; needs no lock, as packets are atomic."""
        with contextlib.suppress(OSError):
            self.channel.check_is_open()
            self.channel.send(Message(Kind.SHUTDOWN, flag=Shutdown.NOW), wait=False)

    def discard(self, patience_s: float) -> None:
        """End the connection, which takes at most twice `patience_s`, and close it."""
        try:
            self.kill()
            self.bury(patience_s)
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptors, unless the program has closed them."""
        self.channel.close()
        pidfd, self.pidfd = self.pidfd, -1
        close_if_ours(pidfd, self._opened)
