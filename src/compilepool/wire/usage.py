"""The time and memory that a job used: part of its RESULT or its Failure.

A worker sends it ahead of the payload of the RESULT.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple
from compilepool.wire.messages import Form, Kind, Message, ProtocolError

if TYPE_CHECKING:
    from compilepool.wire.payloads import Payload

# The last field is the length of the phases that follow, in bytes.
_USAGE = struct.Struct("<dddQIIH")
_USAGE_SIZE = _USAGE.size
_MAX_PHASES = 64
_LATEST_S = 1e12  # seconds; a time after it is not one of `time.monotonic()`


class Usage(NamedTuple):
    """The time and memory that a job used.

    Attributes:
        started: the time at which the job began, by `time.monotonic()`, which is the same in all
            processes; 0 if it did not begin.
        ended: the time at which it ended.
        cpu_s: the CPU time of the job and of its children that have been waited for, in seconds.
        peak_bytes: the most memory that the job was seen to take, in bytes.
        pid: the PID of its worker; 0 if it had none.
        attempts: how often the job was begun.
        phases: the phases that the job reported, as `phases_text` encodes them. It is parsed only
            on demand.
    """

    started: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    pid: int = 0
    attempts: int = 1
    phases: str = ""

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> Usage:
        """The usage whose values `list(usage)` returned.

        Raises:
            TypeError: there are too many or too few values.
            ValueError: a value is of the wrong type.
        """
        return _unpacked(_packed(cls._make(values)))


NO_USAGE = Usage()


def result_message(id: int, flag: int, payload: Payload, usage: Usage) -> Message:
    """The RESULT of a job; see `Payload.message` for the ownership of descriptors."""
    return payload.message(Kind.RESULT, id, flag, _packed(usage))


def lost_result(id: int, usage: Usage) -> Message:
    """The RESULT of a job whose payload was lost: it has the form MEMFD and no descriptor."""
    return Message(Kind.RESULT, id, form=Form.MEMFD, body=_packed(usage))


def usage_of(message: Message) -> Usage:
    """The usage in a RESULT.

    Raises:
        ProtocolError: the usage is missing or invalid. The caller still owns the descriptors.
    """
    try:
        usage = _unpacked(message.body)
    except ValueError as error:
        raise ProtocolError(f"RESULT without a valid usage: {error}") from None
    if not (
        0 <= usage.started <= _LATEST_S
        and 0 <= usage.ended <= _LATEST_S
        and 0 <= usage.cpu_s <= _LATEST_S
    ):
        raise ProtocolError("RESULT with wrong times")
    return usage


def read_usage(message: Message) -> tuple[Usage, int]:
    """Parse the head of a RESULT.

    Returns:
        The usage, and the offset in the body at which the payload begins.

    Raises:
        ProtocolError: the usage is missing or invalid. The caller still owns the descriptors.
    """
    return usage_of(message), _size(message.body)


def replace_usage(message: Message, usage: Usage) -> Message:
    """The same RESULT with another usage."""
    return message._replace(body=_packed(usage) + message.body[_size(message.body) :])


def phases_text(phases: Sequence[tuple[str, float]]) -> str:
    """The first 64 phases of a job as JSON.

    The text has less than 64 KiB, because a name has about 100 bytes at most.

    Args:
        phases: the name of each phase and the time at which it began, by `time.monotonic()`.
    """
    import json

    return json.dumps(phases[:_MAX_PHASES], ensure_ascii=False) if phases else ""


def phases_of_text(text: str) -> list[tuple[str, float]]:
    """Parse the text that `phases_text` returned.

    Returns:
        The name of each phase and the time at which it began; an empty list if the text is invalid.
    """
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
        raise ValueError(f"not the usage of a job: {error}") from None


def _unpacked(data: bytes) -> Usage:
    if len(data) < _USAGE_SIZE:
        raise ValueError("it is too short")
    *numbers, length = _USAGE.unpack_from(data)
    if not length:
        return Usage._make((*numbers, ""))
    if len(data) < _USAGE_SIZE + length:
        raise ValueError("it is too short")
    return Usage._make([*numbers, data[_USAGE_SIZE : _USAGE_SIZE + length].decode()])
