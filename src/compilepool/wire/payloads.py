"""Payloads: what a job's call, result or exception is on the wire.

A payload is a list of sections: the pickle stream, then its out-of-band buffers (PEP 574). Small
ones travel in the message; larger ones in a sealed memfd, of which only the descriptor travels, so
that the supervisor copies nothing and there is no size limit.

Layout of INLINE_MANY and MEMFD: a u32 count, 4 bytes of padding, a u64 length for each section,
then the sections, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from compilepool.wire.messages import Form, Kind, Message, ProtocolError

INLINE_LIMIT = 64 * 1024
"""Bytes. From here on a memfd costs less than two more copies through sockets."""

_ALIGNMENT = 64
_COUNT = struct.Struct("<I4x")
_MAX_SECTIONS = 1 << 24
_IOV_MAX = 1024  # <limits.h>; the kernel's UIO_MAXIOV
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Buffer: TypeAlias = bytes | bytearray | memoryview
Section: TypeAlias = Sequence[Buffer]
"""One section as the pieces that it is made of, so that large pieces need not be joined."""


class Payload(NamedTuple):
    """A packed payload. Whoever holds it owns `fd` (-1: none).

    A MEMFD payload without descriptor has been spilled: `body` holds what the memfd held.
    """

    form: Form
    body: bytes = b""
    fd: int = -1

    @property
    def is_inline(self) -> bool:
        return self.form is not Form.MEMFD

    def message(self, kind: Kind, id: int = 0, flag: int = 0) -> Message:
        """This payload as a message. A spilled one gets a new memfd, which the message owns."""
        if self.form is not Form.MEMFD:
            return Message(kind, id, flag, self.form, self.body)
        fd = self.fd if self.fd >= 0 else _sealed_memfd([self.body])
        return Message(kind, id, flag, Form.MEMFD, b"", (fd,))

    def spill(self) -> Payload:
        """The same payload without a descriptor; closes the one it had.

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
        """Close the descriptor. The payload is not to be used any more."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # some programs close all that they find
                os.close(self.fd)


def of_message(message: Message) -> Payload:
    """The payload of a received message, which owns the message's descriptors from now on.

    Raises:
        ProtocolError: the message has no payload, or not the descriptor that its form needs. Its
            descriptors are closed.
    """
    wanted = 1 if message.form is Form.MEMFD else 0
    if message.form is Form.NONE or len(message.fds) != wanted:
        for fd in message.fds:
            os.close(fd)
        raise ProtocolError(f"{message.kind.name} without a proper payload")
    return Payload(message.form, message.body, message.fds[0] if wanted else -1)


def lacks_descriptor(message: Message) -> bool:
    """Whether a message has lost its payload, because this process has too many open files."""
    return message.form is Form.MEMFD and not message.fds


def pack(sections: Sequence[Section], *, inline_limit: int = INLINE_LIMIT) -> Payload:
    """Pack sections, copying each byte once; into a memfd if they have more than `inline_limit`.

    Raises:
        OSError: no memory or no descriptor for a memfd.
    """
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
    return Payload(Form.MEMFD, b"", _sealed_memfd(pieces))


class Unpacked:
    """The sections of a payload: a context manager, because they may be mapped memory.

    `stream` is the first section, and valid inside the context only. `buffers` are the others,
    writable copies that may be kept. Closes the payload's descriptor.

    Raises, on entering:
        ProtocolError: the layout is not valid, or the memfd is not sealed.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._map: mmap.mmap | None = None
        self.stream: memoryview = memoryview(b"")
        self.buffers: list[bytearray] = []

    def __enter__(self) -> Unpacked:
        payload = self._payload
        try:
            if payload.form is Form.INLINE:
                self.stream = memoryview(payload.body)
            elif payload.form is Form.INLINE_MANY or payload.fd < 0:
                self._split(memoryview(payload.body))
            else:
                self._open(payload.fd)
        finally:
            payload.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.release()
        if self._map is not None:
            self._map.close()

    def _split(self, data: memoryview) -> None:
        places = _places(data, len(data))
        self.buffers = [bytearray(data[at : at + length]) for at, length in places[1:]]
        at, length = places[0]
        self.stream = data[at : at + length]

    def _open(self, fd: int) -> None:
        try:
            sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            raise ProtocolError("payload descriptor is not a memfd") from None
        if sealed & _SEALS != _SEALS:
            # Unsealed, its sender could shrink it under our mapping, and a read would be SIGBUS.
            raise ProtocolError("payload memfd is not sealed")
        size = os.fstat(fd).st_size
        head = _read(fd, 0, min(size, _COUNT.size))
        count = _COUNT.unpack(head)[0] if len(head) == _COUNT.size else 0
        places = _places(_read(fd, 0, min(size, _COUNT.size + 8 * min(count, _MAX_SECTIONS))), size)
        self.buffers = [_read(fd, at, length) for at, length in places[1:]]
        at, length = places[0]
        if length:
            try:
                self._map = mmap.mmap(fd, at + length, access=mmap.ACCESS_READ)
            except OSError as error:  # no room in the address space
                raise ProtocolError(f"payload cannot be mapped: {error!r}") from None
            whole = memoryview(self._map)
            self.stream = whole[at : at + length]
            whole.release()


def _places(head: Buffer, size: int) -> list[tuple[int, int]]:
    """Offset and length of each section; `head` has at least the counts, `size` is of the whole."""
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


def _sealed_memfd(pieces: Sequence[Buffer]) -> int:
    fd = os.memfd_create("compilepool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        pending = [memoryview(piece).cast("B") for piece in pieces if _size(piece)]
        pending.reverse()
        while pending:
            # writev takes IOV_MAX pieces and 2 GiB at most, writev(2).
            written = os.writev(fd, pending[: -_IOV_MAX - 1 : -1])
            while pending and written >= pending[-1].nbytes:
                written -= pending.pop().nbytes
            if written:
                pending[-1] = pending[-1][written:]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
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
    except (OSError, MemoryError) as error:  # no file, not open for reading, or too large
        raise ProtocolError(f"payload cannot be read: {error!r}") from None
    return data
