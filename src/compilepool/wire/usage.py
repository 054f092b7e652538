"""What a job has used: told by its worker ahead of the payload of its RESULT, or in a Failure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple
from compilepool.wire.messages import Form, Kind, Message, ProtocolError

if TYPE_CHECKING:
    from compilepool.wire.payloads import Payload

_USAGE = struct.Struct("<dddQIIQH")  # the last: how many bytes of phases follow
_USAGE_SIZE = _USAGE.size
_MAX_PHASES = 64
_LATEST_S = 1e12


class Usage(NamedTuple):
    """What a job has used.

    Attributes:
        started: when it began, by `time.monotonic()`, which is the same in all processes; 0 if it
            did not.
        ended: when it ended.
        cpu_s: the CPU time of itself and of its children that have been waited for, in seconds.
        peak_bytes: the most memory that it has been seen to take.
        pid: of its worker; 0 if it had none.
        attempts: how often it was begun.
        worker_bytes: the memory that its worker shared with no other process when it had ended, if
            that was more than a worker may have; else 0.
        phases: what it called what it did, and since when; see `phases_text`. Only who wants to
            know reads it.
    """

    started: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    pid: int = 0
    attempts: int = 1
    worker_bytes: int = 0
    phases: str = ""

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> Usage:
        """The inverse of `list(usage)`.

        Raises:
            TypeError, ValueError: they are none.
        """
        return _unpacked(_packed(cls._make(values)))


NO_USAGE = Usage()


def result_message(id: int, flag: int, payload: Payload, usage: Usage) -> Message:
    """The RESULT of a job; see `Payload.message` for who owns its descriptors."""
    return payload.message(Kind.RESULT, id, flag, _packed(usage))


def lost_result(id: int, usage: Usage) -> Message:
    """The RESULT of a job whose payload did not get through: it has a memfd, and lacks it."""
    return Message(Kind.RESULT, id, form=Form.MEMFD, body=_packed(usage))


def usage_of(message: Message) -> Usage:
    """What the job has used.

    Raises:
        ProtocolError: it does not tell. The caller still owns the descriptors.
    """
    try:
        usage = _unpacked(message.body)
    except ValueError as error:
        raise ProtocolError(f"RESULT that does not tell what the job has used: {error}") from None
    if not (
        0 <= usage.started <= _LATEST_S
        and 0 <= usage.ended <= _LATEST_S
        and 0 <= usage.cpu_s <= _LATEST_S
    ):
        raise ProtocolError("RESULT with wrong times")
    return usage


def read_usage(message: Message) -> tuple[Usage, int]:
    """What the job has used, and where in the body the payload begins.

    Raises:
        ProtocolError: it does not tell. The caller still owns the descriptors.
    """
    return usage_of(message), _size(message.body)


def replace_usage(message: Message, usage: Usage) -> Message:
    """The same RESULT with another usage."""
    return message._replace(body=_packed(usage) + message.body[_size(message.body) :])


def phases_text(phases: Sequence[tuple[str, float]]) -> str:
    """The phases of a job, each with when it began, by `time.monotonic()`; the first ones.

    Names have some 100 bytes at most, so this has less than 64 KiB.
    """
    import json

    return json.dumps(phases[:_MAX_PHASES], ensure_ascii=False) if phases else ""


def phases_of_text(text: str) -> list[tuple[str, float]]:
    """The inverse; nothing if it is none."""
    import json

    if not text:
        return []
    try:
        phases = [(name, since) for name, since in json.loads(text)]
    except (ValueError, TypeError, RecursionError):
        return []
    is_valid = all(isinstance(name, str) and isinstance(since, float) for name, since in phases)
    return phases if is_valid and all(math.isfinite(since) for _, since in phases) else []


def _size(body: bytes) -> int:
    return int(_USAGE_SIZE + _USAGE.unpack_from(body)[-1])


def _packed(usage: Usage) -> bytes:
    try:
        data = usage.phases.encode() if usage.phases else b""
        return _USAGE.pack(*usage[:-1], len(data)) + data
    except (struct.error, AttributeError, UnicodeEncodeError) as error:
        raise ValueError(f"not what a job has used: {error}") from None


def _unpacked(data: bytes) -> Usage:
    if len(data) < _USAGE_SIZE:
        raise ValueError("it is too short")
    *numbers, length = _USAGE.unpack_from(data)
    if not length:
        return Usage._make((*numbers, ""))
    if len(data) < _USAGE_SIZE + length:
        raise ValueError("it is too short")
    return Usage._make([*numbers, data[_USAGE_SIZE : _USAGE_SIZE + length].decode()])
