"""One end of a link: packets in and out of a SOCK_SEQPACKET socket, whatever they mean."""

from __future__ import annotations

# `socket` is classes and enums around this, which take longer to make than most processes take to
# do all that they do with sockets.
import _socket as socket
import array
import contextlib
import errno
import mmap
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from compilepool.light_typing import NoReturn
from compilepool.wire.messages import MAX_FDS, MAX_PACKET, Message, ProtocolError, decode, encode

# Room for one more than there may be: what fills it is too many.
_ANCILLARY_SPACE = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)
# As plain numbers: operators on the enums of `socket` take as long as the system call.
_NOW = int(socket.MSG_DONTWAIT)
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CLOEXEC_NOW = _CLOEXEC | _NOW
_TRUNCATED = int(socket.MSG_TRUNC)
_FDS_TRUNCATED = int(socket.MSG_CTRUNC)
_SEND_BUFFER = 1024 * 1024  # the kernel grants what net.core.wmem_max allows
_TOO_MANY_REFS_PATIENCE_S = 60.0


class Channel:
    """Sends and receives messages. Not thread-safe; one reader and one writer may differ.

    A peer's death ends `receive` with None, and `send` with ConnectionError. Descriptors are
    received close-on-exec.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)  # whatever the program has set by `socket.setdefaulttimeout`
        self._sock = sock
        # Pages of it are there only if packets are so long.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._buffer = memoryview(mmap.mmap(-1, MAX_PACKET, flags=flags))
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """This process's end as a channel, and the other as a socket to hand on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def adopt(cls, fd: int) -> Channel:
        """The channel of a descriptor that this process was started with."""
        os.set_inheritable(fd, False)
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def shutdown_output(self) -> None:
        """Have the peer see the end, after what was sent before; receiving goes on."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def send(self, message: Message, *, wait: bool = True) -> bool:
        """Send one message; its descriptors stay open here.

        Returns:
            False if `wait` is False and there is no room now.

        Raises:
            ConnectionError: the peer is gone.
        """
        return self.send_packet(encode(message), message.fds, wait=wait)

    def send_packet(self, packet: bytes, fds: tuple[int, ...], *, wait: bool) -> bool:
        """`send` for a packet of messages already encoded."""
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
                return False
            except OSError as error:
                # More descriptors in flight than RLIMIT_NOFILE, unix(7): they are in unread
                # packets, so wait until the peers have read some.
                if error.errno != errno.ETOOMANYREFS:
                    raise
                if not wait:
                    return False
                deadline = deadline or time.monotonic() + _TOO_MANY_REFS_PATIENCE_S
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    def receive(self, *, wait: bool = True) -> list[Message] | None:
        """Receive one packet.

        Returns:
            Its messages; an empty list if `wait` is False and there is none now; None if the peer
            is gone and all that it sent has been received. Messages lose their descriptors where
            this process has too many open files to receive them.

        Raises:
            ProtocolError: the packet is malformed; its descriptors are closed.
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
                # The peer closed with packets of ours unread. The kernel reports that once, ahead
                # of what the peer had sent before.
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
    """A queue before a channel, for a sender that must never block.

    Messages leave in order, several to a packet. The outbox owns their descriptors.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, message: Message) -> None:
        """Queue a message; it leaves with `flush`."""
        self._waiting.append((encode(message), message.fds))

    def flush(self) -> None:
        """Send what the socket takes. Raises ConnectionError if the peer is gone."""
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
            for _ in parts:
                close_all(waiting.popleft()[1])

    def clear(self) -> None:
        """Drop what has not left."""
        while self._waiting:
            close_all(self._waiting.popleft()[1])


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that this process owns."""
    for fd in fds:
        os.close(fd)


def handle_each(messages: Sequence[Message], handle: Callable[[Message], None]) -> None:
    """Call `handle`, which takes over descriptors, with each message.

    Raises:
        ProtocolError: `handle` raised it; the descriptors of the messages after it are closed.
    """
    for index, message in enumerate(messages, 1):
        try:
            handle(message)
        except ProtocolError:
            close_messages(messages[index:])
            raise


def refuse(message: Message, reason: str) -> NoReturn:
    """Close the message's descriptors and raise ProtocolError."""
    close_all(message.fds)
    raise ProtocolError(f"{message.kind.name} {reason}")


def close_messages(messages: Iterable[Message]) -> None:
    """Close the descriptors of messages that nobody wants."""
    for message in messages:
        close_all(message.fds)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
