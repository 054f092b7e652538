"""Objects to sections and back: pickle first, cloudpickle for what pickle cannot do.

Used by the client and the workers only. The supervisor never unpickles anything.
"""

from __future__ import annotations

import pickle

from compilepool.wire.light_typing import Any, Protocol
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Buffer, Payload, Section, Unpacked, pack
from compilepool.wire.spares import Spares

_LONGEST_NAMING = 1 << 20
"""Bytes. Longer pieces of a stream are data, and name nothing."""


class Serializer(Protocol):
    """What `CompilePool(serializer=...)` takes; PyTorch's `SubprocPickler` is one.

    It is itself sent to the workers, by pickle or cloudpickle, and used on both sides.
    """

    def dumps(self, obj: object, /) -> bytes:
        """`obj` as bytes."""

    def loads(self, data: bytes, /) -> Any:
        """The object that `data` was made of."""


def dump(obj: object, serializer: Serializer | None = None) -> list[Section]:
    """The sections of `obj`, with `serializer` or pickle and cloudpickle.

    Raises:
        Exception: whatever the serializer raises, the reason that `obj` cannot be pickled.
    """
    if serializer is not None:
        data = serializer.dumps(obj)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"serializer.dumps returned {type(data).__name__}, not bytes")
        return [[data]]
    try:
        sections = _dump_with(pickle.Pickler, obj)
    except Exception:  # noqa: BLE001 - pickle raises anything; cloudpickle then says what is wrong
        return _dump_by_value(obj)
    for piece in sections[0]:
        if len(piece) < _LONGEST_NAMING and b"__main__" in bytes(piece):
            # By reference to a `__main__` that the receiver does not have.
            return _dump_by_value(obj)
    return sections


def dump_payload(
    obj: object, serializer: Serializer | None = None, spares: Spares | None = None
) -> Payload:
    """`dump`, packed, as `pack` does it."""
    return pack(dump(obj, serializer), spares=spares)


def load(unpacked: Unpacked, serializer: Serializer | None) -> Any:
    """The object of sections that `dump` made.

    Raises:
        Exception: whatever unpickling raises.
    """
    if serializer is not None:
        return serializer.loads(bytes(unpacked.stream))
    if unpacked.file is not None:
        return pickle.Unpickler(unpacked.file, buffers=unpacked.buffers).load()
    return pickle.loads(unpacked.stream, buffers=unpacked.buffers)


def load_payload(payload: Payload, serializer: Serializer | None = None) -> Any:
    """`load` from a packed payload, which is closed."""
    if payload.form is Form.INLINE and serializer is None:
        return pickle.loads(payload.body)
    with Unpacked(payload) as unpacked:
        return load(unpacked, serializer)


class _Pieces:
    """A file for a pickler that keeps what is written as it is, without copying."""

    __slots__ = ("pieces", "write")

    def __init__(self) -> None:
        self.pieces: list[Buffer] = []
        self.write = self.pieces.append


def _dump_with(pickler: Any, obj: object) -> list[Section]:
    stream = _Pieces()
    buffers: list[pickle.PickleBuffer] = []
    pickler(stream, 5, buffer_callback=buffers.append).dump(obj)
    return [stream.pieces, *([buffer.raw()] for buffer in buffers)] if buffers else [stream.pieces]


def _dump_by_value(obj: object) -> list[Section]:
    import cloudpickle

    return _dump_with(cloudpickle.Pickler, obj)
