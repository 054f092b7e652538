"""Objects to sections and back: pickle first, cloudpickle for what pickle cannot do.

Used by the client and the workers only. The supervisor never unpickles anything.
"""

from __future__ import annotations

import pickle

from compilepool.light_typing import Any, Protocol, lazy_annotations
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Buffer, Payload, Section, Unpacked, pack
from compilepool.wire.spares import Spares

_SMALL = 8 * 1024  # bytes
_LONGEST_NAMING = 1 << 20
"""Bytes. Longer pieces of a stream are data, and name nothing."""


@lazy_annotations
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
        sections = _dump(obj)
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


class _Dumper:
    """A pickler, and the file that it writes to: pieces are kept as they are, without copying."""

    def __init__(self, pickler: Any = pickle.Pickler) -> None:
        self._pieces: list[Buffer] = []
        self._buffers: list[pickle.PickleBuffer] = []
        self.write = self._pieces.append
        self._pickler = pickler(self, protocol=5, buffer_callback=self._buffers.append)

    def dump(self, obj: object) -> list[Section]:
        self._pickler.dump(obj)
        return [self._pieces[:], *([buffer.raw()] for buffer in self._buffers)]

    def forget(self) -> bool:
        """Be ready for another object. Returns whether that is better than a new dumper."""
        if len(self._pieces) > 1 or len(self._pieces[0]) > _SMALL or self._buffers:
            return False  # its memo may be large, and would stay so
        self._pieces.clear()
        self._pickler.clear_memo()
        return True


_idle_dumpers: list[_Dumper] = []  # each is used by one thread at a time


def _dump(obj: object) -> list[Section]:
    try:
        dumper = _idle_dumpers.pop()
    except IndexError:
        dumper = _Dumper()
    sections = dumper.dump(obj)
    if dumper.forget():
        _idle_dumpers.append(dumper)
    return sections


def _dump_by_value(obj: object) -> list[Section]:
    import cloudpickle

    return _Dumper(cloudpickle.Pickler).dump(obj)
