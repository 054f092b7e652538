"""One end of a link: sends and receives packets over a SOCK_SEQPACKET socket.

Every process of ours uses it. What the messages mean is not decided here.
"""

from __future__ import annotations

# `socket` wraps this module in classes and enums. Importing it takes longer than most processes
# spend on all their socket calls.
import _socket as socket
import array
import contextlib
import errno
import fcntl
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from compilepool.light_typing import NoReturn
from compilepool.linux.descriptors import away_from_output, close_if_ours, is_open_on, opened_by
from compilepool.wire.messages import MAX_FDS, MAX_PACKET, Message, ProtocolError, decode, encode

# Room for one descriptor too many, so that `receive` notices a packet with more than MAX_FDS.
_ANCILLARY_SPACE = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)
# Plain integers: an operator on the enums of `socket` takes as long as the system call.
_NOW = int(socket.MSG_DONTWAIT)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CLOEXEC_NOW = _CLOEXEC | _NOW
_TRUNCATED = int(socket.MSG_TRUNC)
_FDS_TRUNCATED = int(socket.MSG_CTRUNC)
_SEND_BUFFER = 1024 * 1024  # bytes; the kernel caps it at net.core.wmem_max, socket(7)
_SIOCOUTQ = 0x5411  # <linux/sockios.h>
_TOO_MANY_REFS_PATIENCE_S = 60.0  # how long `send` waits for descriptors in flight to arrive


class Channel:
    """Sends and receives messages.

    A channel is not thread-safe, except that one thread may send while another one receives. When
    the peer dies, `receive` returns None and `send` raises ConnectionError. Received descriptors
    are close-on-exec.

    Attributes:
        is_short: whether the last packet that was not sent at once has met the kernel's limit of
            descriptors in flight, unix(7), and not a full socket. No event tells when that is over.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.is_short = False
        sock.settimeout(None)  # The user's program may have called `socket.setdefaulttimeout`.
        self._sock = sock
        self._opened = opened_by(sock.fileno())
        # The kernel gives this memory page by page, so a channel that receives short packets only
        # stays small.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._buffer = memoryview(mmap.mmap(-1, MAX_PACKET, flags=flags))
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Create a socket pair.

        Returns:
            This process's end as a channel, and the other end as a socket to hand on.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            fd = away_from_output(ours.detach())
        except OSError:
            theirs.close()
            raise
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)), theirs

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """The channel of a socket that this process was started with.

        Args:
            fd: the socket's descriptor, which the channel owns from now on.
        """
        os.set_inheritable(fd, False)
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd))

    def fileno(self) -> int:
        return self._sock.fileno()

    def check_is_open(self) -> None:
        """Check that the program has not closed this socket, as some close all that they find.

        Its number may belong to another socket by now, even to one of another pool.

        Raises:
            OSError: it has.
        """
        if not is_open_on(self._sock.fileno(), self._opened):
            raise OSError(errno.EBADF, "the program has closed the socket to its supervisor")

    def close(self) -> None:
        close_if_ours(self._sock.detach(), self._opened)

    def shutdown_output(self) -> None:
        """End this direction. The peer receives what was sent before, then the end.

        Receiving goes on.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    @property
    def has_unread(self) -> bool:
        """Whether the peer has still to receive some of what was sent; SIOCOUTQ, as in tcp(7)."""
        return fcntl.ioctl(self._sock.fileno(), _SIOCOUTQ, bytes(4)) != bytes(4)

    def end(self) -> None:
        """End both directions, whoever else has the socket. `receive` then finds the end."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def send(self, message: Message, *, wait: bool = True) -> bool:
        """Send one message. Its descriptors stay open in this process.

        Returns:
            False if `wait` is False and the socket has no room now, or too many descriptors are in
            flight; see `is_short`.

        Raises:
            ConnectionError: the peer is gone.
        """
        return self.send_packet(encode(message), message.fds, wait=wait)

    def send_packet(self, packet: bytes, fds: tuple[int, ...], *, wait: bool) -> bool:
        """Send a packet of messages that are already encoded; see `send`."""
        flags = 0 if wait else _NOW
        deadline = 0.0
        while True:
            try:
                if fds:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                    self._sock.sendmsg([packet], rights, flags)
                else:
                    self._sock.send(packet, flags)
                return True
            except BlockingIOError:
                self.is_short = False
                return False
            except OSError as error:
                # More descriptors are in flight than RLIMIT_NOFILE allows, unix(7). They are in
                # packets that nobody has read yet, so wait until the peers have read some.
                if error.errno != errno.ETOOMANYREFS:
                    raise
                if not wait:
                    self.is_short = True
                    return False
                deadline = deadline or time.monotonic() + _TOO_MANY_REFS_PATIENCE_S
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def receive(self, *, wait: bool = True) -> list[Message] | None:
        """Receive one packet.

        Returns:
            The packet's messages. An empty list if `wait` is False and no packet is there. None if
            the peer is gone and everything that it sent has been received. If this process has too
            many open files to receive the descriptors, the messages come without them.

        Raises:
            ProtocolError: the packet is malformed. Its descriptors are closed.
        """
        flags = _CLOEXEC if wait else _CLOEXEC_NOW
        while True:
            try:
                size, ancillary, result_flags, _ = self._sock.recvmsg_into(
                    [self._buffer], _ANCILLARY_SPACE, flags
                )
                break
            except BlockingIOError:
                return []
            except ConnectionResetError:
                # The peer closed its socket with packets of ours unread. The kernel reports that
                # once, before it delivers what the peer had sent, so ask again.
                continue
        fds = _descriptors(ancillary) if ancillary else []
        try:
            if result_flags & _TRUNCATED or len(fds) > MAX_FDS:
                raise ProtocolError("oversized packet")
            if size == 0:
                close_all(fds)
                return None
            if result_flags & _FDS_TRUNCATED:
                close_all(fds)
                fds = []
                return decode(bytes(self._buffer[:size]), None)
            return decode(bytes(self._buffer[:size]), fds)
        except ProtocolError:
            close_all(fds)
            raise


class Outbox:
    """A queue in front of a channel, for a sender that must never block.

    Messages leave in order, several to a packet. The outbox owns their descriptors.

    Attributes:
        waiting_bytes: the bytes of the messages that wait.
        waiting_fds: the number of their descriptors.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.waiting_bytes = 0
        self.waiting_fds = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_short(self) -> bool:
        """Whether messages wait because too many descriptors are in flight; see `Channel`."""
        return bool(self._waiting) and self._channel.is_short

    def put(self, message: Message) -> None:
        """Queue a message. It leaves with the next `flush`."""
        data = encode(message)
        self._waiting.append((data, message.fds))
        self.waiting_bytes += len(data)
        self.waiting_fds += len(message.fds)

    def flush(self) -> None:
        """Send as many queued messages as the socket takes now.

        Raises:
            ConnectionError: the peer is gone.
        """
        waiting = self._waiting
        while waiting:
            parts: list[bytes] = []
            fds: tuple[int, ...] = ()
            size = 0
            for data, more_fds in waiting:
                size += len(data)
                if parts and (size > MAX_PACKET or len(fds) + len(more_fds) > MAX_FDS):
                    break
                parts.append(data)
                fds += more_fds
            if not self._channel.send_packet(b"".join(parts), fds, wait=False):
                return
            self.waiting_bytes -= sum(map(len, parts))
            self.waiting_fds -= len(fds)
            for _ in parts:
                close_all(waiting.popleft()[1])

    def clear(self) -> None:
        """Drop all queued messages and close their descriptors."""
        while self._waiting:
            close_all(self._waiting.popleft()[1])


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that this process owns."""
    for fd in fds:
        os.close(fd)


def handle_each(messages: Sequence[Message], handle: Callable[[Message], None]) -> None:
    """Call `handle` with each message in turn. `handle` takes over the message's descriptors.

    Raises:
        BaseException: `handle` raised it. The descriptors of the messages that follow are closed.
    """
    for index, message in enumerate(messages, 1):
        try:
            handle(message)
        except BaseException:
            close_messages(messages[index:])
            raise


def refuse(message: Message, reason: str) -> NoReturn:
    """Close the message's descriptors and raise ProtocolError."""
    close_all(message.fds)
    raise ProtocolError(f"{message.kind.name} {reason}")


def close_messages(messages: Iterable[Message]) -> None:
    """Close the descriptors of messages that nobody handles."""
    for message in messages:
        close_all(message.fds)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
