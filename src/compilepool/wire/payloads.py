"""Payloads: a job's call, result or exception as it travels between processes.

A payload is a list of sections: the pickle stream, then its out-of-band buffers (PEP 574). A small
payload travels in the message. A larger one is in a memfd, and only the descriptor travels: the
supervisor copies nothing, and there is no size limit. The sender does not change a memfd until it
has been read.

INLINE_MANY and MEMFD have this layout: a u32 count, 4 bytes for `spares`, a u64 length for each
section, then the sections, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import struct
from collections.abc import Callable, Sequence

from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from compilepool.linux.descriptors import Opened, away_from_output, is_open_on, opened_by
from compilepool.wire.messages import Form, Kind, Made, Message, ProtocolError, parse_json
from compilepool.wire.spares import NAME, Spares, mark_read

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_SIZE = 64 * 1024  # bytes; about the size of a frame of a pickle, PEP 3154


def open_section(fd: int, at: int, length: int) -> io.BufferedReader:
    """A section of a memfd as a file. The file must not be used after `fd` is closed.

    Args:
        fd: the memfd. Its file offset, which processes share, is neither used nor changed.
        at: the offset at which the section begins, in bytes.
        length: the length of the section in bytes.
    """
    return io.BufferedReader(_Section(fd, at, length), _BUFFER_SIZE)


class _Section(io.RawIOBase):
    def __init__(self, fd: int, at: int, length: int) -> None:
        self._fd = fd
        self._at = at
        self._end = at + length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        room = memoryview(buffer).cast("B")[: self._end - self._at]
        count = os.preadv(self._fd, [room], self._at) if room else 0
        self._at += count
        return count


INLINE_LIMIT = 64 * 1024
"""The most bytes of a payload in a message.

Above it, a memfd costs less than two more copies through sockets.
"""

# Looking up a member of an enum takes time, and these two are needed for every message.
_NONE, _MEMFD = Form.NONE, Form.MEMFD
_ALIGNMENT = 64  # bytes
_COUNT = struct.Struct("<I4x")  # the number of sections, and 4 bytes for `spares`
_MAX_SECTIONS = 1 << 24
_HEAD_SIZE = 512  # bytes; enough for the lengths of 63 sections, more than most payloads have
_JSON_LIMIT = 64 * 1024 * 1024  # bytes; more than the kernel allows for a command line, execve(2)
_IOV_MAX = 1024  # <limits.h>; the kernel's UIO_MAXIOV

Buffer: TypeAlias = bytes | bytearray | memoryview
Section: TypeAlias = Sequence[Buffer]
"""One section as the pieces that it consists of, so that large pieces need not be joined."""


class Payload(NamedTuple):
    """A packed payload. Its holder owns `fd`; -1 means that there is none.

    A MEMFD payload without a descriptor has been spilled: `body` has the memfd's content. `opened`
    is what `fd` is open on, where this process has packed it, and so may keep it for long.
    """

    form: Form
    body: bytes = b""
    fd: int = -1
    opened: Opened | None = None

    @property
    def is_inline(self) -> bool:
        return self.form is not _MEMFD

    @property
    def is_lost(self) -> bool:
        """Whether the program has closed the descriptor, as some close all that they find."""
        return self.opened is not None and not is_open_on(self.fd, self.opened)

    def message(self, kind: Kind, id: int = 0, flag: int = 0, head: bytes = b"") -> Message:
        """This payload in a message whose body begins with `head`.

        The message of a spilled payload has a new memfd, which the message owns. Otherwise the
        message shares this payload's descriptor.

        Raises:
            OSError: there is no memory or no descriptor for a new memfd.
        """
        if self.form is not _MEMFD:
            return Message(kind, id, flag, self.form, head + self.body)
        fd = self.fd if self.fd >= 0 else _write([self.body])
        return Message(kind, id, flag, Form.MEMFD, head, (fd,))

    def spill(self) -> Payload:
        """The same payload without a descriptor. Closes the descriptor that it had.

        Raises:
            ProtocolError: the descriptor cannot be read.
        """
        if self.fd < 0:
            return self
        try:
            return Payload(Form.MEMFD, bytes(_read(self.fd, 0, os.fstat(self.fd).st_size)))
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptor. The payload must not be used afterwards."""
        if self.fd >= 0 and not self.is_lost:
            with contextlib.suppress(OSError):
                os.close(self.fd)


def of_message(message: Message, at: int = 0) -> Payload:
    """The payload of a received message. It takes over the message's descriptors.

    Args:
        message: the message.
        at: the offset in the message's body at which the payload begins.

    Raises:
        ProtocolError: the message has no payload, or lacks the descriptor that its form needs. Its
            descriptors are closed.
    """
    check_payload(message)
    body = message.body[at:] if at else message.body
    return Payload(message.form, body, message.fds[0] if message.fds else -1)


def check_payload(message: Message) -> None:
    """Check that `of_message` accepts a message.

    Raises:
        ProtocolError: the message has no payload, or lacks the descriptor that its form needs. Its
            descriptors are closed.
    """
    form = message.form
    if form is _NONE or len(message.fds) != (form is _MEMFD):
        for fd in message.fds:
            os.close(fd)
        raise ProtocolError(f"{message.kind.name} without a proper payload")


def lacks_descriptor(message: Message) -> bool:
    """Whether a message lost its payload because this process has too many open files."""
    return message.form is _MEMFD and not message.fds


def pack(
    sections: Sequence[Section],
    *,
    inline_limit: int = INLINE_LIMIT,
    spares: Spares | None = None,
) -> Payload:
    """Pack sections, copying each byte once.

    Args:
        sections: the sections.
        inline_limit: the most bytes of a payload that is not put into a memfd.
        spares: memfds that may be written to instead of a new one.

    Raises:
        OSError: there is no memory or no descriptor for a memfd.
    """
    if len(sections) == 1 and len(sections[0]) == 1:
        piece = sections[0][0]
        if isinstance(piece, bytes) and len(piece) <= inline_limit:
            return Payload(Form.INLINE, piece)
    lengths = [sum(_size(piece) for piece in section) for section in sections]
    if len(lengths) == 1 and lengths[0] <= inline_limit:
        return Payload(Form.INLINE, b"".join(sections[0]))
    pieces: list[Buffer] = [_COUNT.pack(len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)]
    at = len(pieces[0])
    for section, length in zip(sections, lengths, strict=True):
        padding = -at % _ALIGNMENT
        pieces.append(bytes(padding))
        pieces.extend(section)
        at += padding + length
    if at <= inline_limit:
        return Payload(Form.INLINE_MANY, b"".join(pieces))
    fd = _write(pieces, -1 if spares is None else spares.take())
    return Payload(Form.MEMFD, b"", fd, opened_by(fd))


def pack_json(value: object, *, inline_limit: int = INLINE_LIMIT) -> Payload:
    """A payload with a value as JSON, which may be of any length; see `pack`."""
    import json  # not at the top: the client calls this while the supervisor starts

    return pack([[json.dumps(value).encode()]], inline_limit=inline_limit)


def unpack_json(payload: Payload, make: Callable[[Any], Made], name: str) -> Made:
    """Parse the JSON in a payload, and check it. The payload is closed; see `parse_json`.

    Raises:
        ProtocolError: the payload is invalid or too long, or `make` refused what is in it.
    """
    with Unpacked(payload) as unpacked:
        # A memfd can have any size, with nothing in it.
        is_too_long = unpacked.stream_size > _JSON_LIMIT
        data = b"" if is_too_long else bytes(unpacked.stream)
    return parse_json(data, make, name)


class Unpacked:
    """The sections of a payload, as a context manager: they may be in a file.

    Leaving the context closes the payload's descriptor.

    Args:
        payload: the payload.
        may_be_written_again: whether to mark the memfd as read, so that its sender can use it
            again.

    Attributes:
        stream_size: the length of the first section, the pickle stream, in bytes.
        buffers: the other sections, as writable copies that may be kept.
        file: the pickle stream as a file, if it is in a memfd; else None. Valid inside the context
            only.

    Raises, on entering:
        ProtocolError: the layout is invalid, or the descriptor is not a memfd.
    """

    def __init__(self, payload: Payload, *, may_be_written_again: bool = False) -> None:
        self._payload = payload
        self._may_be_written_again = may_be_written_again
        self._body = memoryview(payload.body)
        self._at = 0
        self.stream_size = 0
        self.buffers: list[bytearray] = []
        self.file: io.BufferedReader | None = None

    def __enter__(self) -> Unpacked:
        payload = self._payload
        try:
            if payload.form is Form.INLINE:
                self.stream_size = len(payload.body)
            elif payload.form is Form.INLINE_MANY or payload.fd < 0:
                self._split()
            else:
                self._open(payload.fd)
        except BaseException:
            payload.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._may_be_written_again and self.file is not None:
            with contextlib.suppress(OSError):  # then the sender does not use it again
                mark_read(self._payload.fd)
        self._payload.close()

    @property
    def stream(self) -> memoryview:
        """The pickle stream.

        Raises:
            ProtocolError: it cannot be read.
        """
        if self.file is None:
            return self._body[self._at : self._at + self.stream_size]
        return memoryview(_read(self._payload.fd, self._at, self.stream_size))

    def _split(self) -> None:
        body = self._body
        places = _places(body, len(body))
        self.buffers = [bytearray(body[at : at + length]) for at, length in places[1:]]
        self._at, self.stream_size = places[0]

    def _open(self, fd: int) -> None:
        try:
            # It fails for anything but a memfd. Reading a pipe, for example, could block for ever.
            fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            raise ProtocolError("payload descriptor is not a memfd") from None
        size = os.fstat(fd).st_size
        head = _read(fd, 0, min(size, _HEAD_SIZE))
        count = _COUNT.unpack_from(head)[0] if len(head) >= _COUNT.size else 0
        if _COUNT.size + 8 * count > len(head):
            head = _read(fd, 0, min(size, _COUNT.size + 8 * min(count, _MAX_SECTIONS)))
        places = _places(head, size)
        self.buffers = [_read(fd, at, length) for at, length in places[1:]]
        self._at, self.stream_size = places[0]
        self.file = open_section(fd, self._at, self.stream_size)


def _places(head: Buffer, size: int) -> list[tuple[int, int]]:
    """The offset and the length of each section.

    Args:
        head: the beginning of the layout, with the count and all lengths.
        size: the size of the whole layout in bytes.
    """
    if len(head) < _COUNT.size:
        raise ProtocolError("truncated payload")
    (count,) = _COUNT.unpack_from(head)
    if not 0 < count <= _MAX_SECTIONS or len(head) < _COUNT.size + 8 * count:
        raise ProtocolError("truncated payload")
    at = _COUNT.size + 8 * count
    places = []
    for length in struct.unpack_from(f"<{count}Q", head, _COUNT.size):
        at += -at % _ALIGNMENT
        if length > size - at:
            raise ProtocolError("truncated payload")
        places.append((at, length))
        at += length
    return places


def _size(piece: Buffer) -> int:
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)


def _write(pieces: Sequence[Buffer], fd: int = -1) -> int:
    """Write the pieces to a memfd: to a new one, or to `fd`, whose old content is lost."""
    if fd < 0:
        fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fd = away_from_output(fd)
    try:
        pending = [memoryview(piece).cast("B") for piece in pieces if _size(piece)]
        pending.reverse()
        at = 0
        while pending:
            # pwritev takes at most IOV_MAX pieces and 2 GiB, writev(2).
            written = os.pwritev(fd, pending[: -_IOV_MAX - 1 : -1], at)
            at += written
            while pending and written >= pending[-1].nbytes:
                written -= pending.pop().nbytes
            if written:
                pending[-1] = pending[-1][written:]
        os.ftruncate(fd, at)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(fd: int, at: int, length: int) -> bytearray:
    try:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            count = os.preadv(fd, [rest], at)
            if count == 0:
                raise ProtocolError("truncated payload")
            rest = rest[count:]
            at += count
    except (OSError, MemoryError) as error:  # not a file, not open for reading, or too large
        raise ProtocolError(f"payload cannot be read: {error!r}") from None
    return data
