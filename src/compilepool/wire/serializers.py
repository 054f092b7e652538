"""Objects to sections and back. It uses pickle, or cloudpickle where pickle fails.

Client and workers use it. The supervisor never unpickles anything.
"""

from __future__ import annotations

import pickle

from compilepool.light_typing import Any, Protocol, lazy_annotations
from compilepool.wire.connections import teach_pickle
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Buffer, Payload, Section, Unpacked, pack
from compilepool.wire.spares import Spares

_SMALL = 8 * 1024  # bytes
_LONGEST_NAMING = 1 << 20
"""The most bytes of a piece of a pickle stream that may name `__main__`. Longer pieces are data."""
_MAIN = b"_main__"
"""What `__main__` and `__mp_main__` end with.

The latter is the `__main__` of a process that multiprocessing has started (Lib/multiprocessing/
spawn.py).
"""


@lazy_annotations
class Serializer(Protocol):
    """The interface that `CompilePool(serializer=...)` expects. PyTorch's `SubprocPickler` has it.

    The serializer itself is sent to the workers, by pickle or cloudpickle, and is used on both
    sides.
    """

    def dumps(self, obj: object, /) -> bytes:
        """Return `obj` as bytes."""

    def loads(self, data: bytes, /) -> Any:
        """Return the object that `dumps` turned into `data`."""


def dump(obj: object, serializer: Serializer | None = None) -> list[Section]:
    """The sections of `obj`, made by `serializer` if there is one, else by pickle or cloudpickle.

    Raises:
        Exception: the error of the serializer or of cloudpickle: the reason why `obj` cannot be
            pickled.
    """
    if serializer is not None:
        data = serializer.dumps(obj)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"serializer.dumps returned {type(data).__name__}, not bytes")
        return [[data]]
    teach_pickle()
    try:
        sections = _dump(obj)
    except Exception:  # noqa: BLE001 - pickle raises anything; cloudpickle then says what is wrong
        return _dump_by_value(obj)
    for piece in sections[0]:
        if len(piece) < _LONGEST_NAMING and _MAIN in bytes(piece):
            # Pickled by reference to `__main__`, and the receiver has another one.
            return _dump_by_value(obj)
    return sections


def dump_payload(
    obj: object, serializer: Serializer | None = None, spares: Spares | None = None
) -> Payload:
    """A payload with the sections that `dump` makes of `obj`.

    Args:
        obj: the object.
        serializer: the user's serializer, or None.
        spares: memfds that may be written to instead of a new one.

    Raises:
        Exception: `obj` cannot be pickled, or there is no memory or no descriptor for a memfd.
    """
    return pack(dump(obj, serializer), spares=spares)


def load(unpacked: Unpacked, serializer: Serializer | None) -> Any:
    """The object whose sections `dump` made.

    Raises:
        Exception: whatever unpickling raises.
    """
    if serializer is not None:
        return serializer.loads(bytes(unpacked.stream))
    if unpacked.file is not None:
        return pickle.Unpickler(unpacked.file, buffers=unpacked.buffers).load()
    return pickle.loads(unpacked.stream, buffers=unpacked.buffers)


def load_payload(payload: Payload, serializer: Serializer | None = None) -> Any:
    """The object in a payload, which is closed.

    Raises:
        ProtocolError: the payload is invalid.
        Exception: whatever unpickling raises.
    """
    if payload.form is Form.INLINE and serializer is None:
        return pickle.loads(payload.body)
    with Unpacked(payload) as unpacked:
        return load(unpacked, serializer)


class _Dumper:
    """A pickler and the file that it writes to, which keeps the pieces of the stream uncopied."""

    def __init__(self, pickler: Any = pickle.Pickler) -> None:
        self._pieces: list[Buffer] = []
        self._buffers: list[pickle.PickleBuffer] = []
        self.write = self._pieces.append
        self._pickler = pickler(self, protocol=5, buffer_callback=self._buffers.append)

    def dump(self, obj: object) -> list[Section]:
        self._pickler.dump(obj)
        return [self._pieces[:], *([buffer.raw()] for buffer in self._buffers)]

    def forget(self) -> bool:
        """Make this dumper ready for another object.

        Returns:
            False if a new dumper is better: the memo of this one may be large, and would stay so.
        """
        if len(self._pieces) > 1 or len(self._pieces[0]) > _SMALL or self._buffers:
            return False
        self._pieces.clear()
        self._pickler.clear_memo()
        return True


_idle_dumpers: list[_Dumper] = []  # a dumper is taken out while a thread uses it


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
    from compilepool.wire.by_value.pickler import ByValuePickler

    return _Dumper(ByValuePickler).dump(obj)
