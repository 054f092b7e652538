"""What a job has used: told by its worker ahead of the payload of its RESULT, or in a Failure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from compilepool.wire.messages import Message, ProtocolError

_USAGE = struct.Struct("<dddQII")


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
    """

    started: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    pid: int = 0
    attempts: int = 1

    @classmethod
    def of_values(cls, values: Sequence[float]) -> Usage:
        """The inverse of `list(usage)`.

        Raises:
            TypeError, ValueError: they are none.
        """
        return cls._make(_USAGE.unpack(_packed(cls._make(values))))


NO_USAGE = Usage()


def with_usage(message: Message, usage: Usage) -> Message:
    """A RESULT of a payload, with what the job has used."""
    return message._replace(body=_packed(usage) + message.body)


def usage_of(message: Message) -> Usage:
    """What the job has used.

    Raises:
        ProtocolError: it does not tell. The caller still owns the descriptors.
    """
    if len(message.body) < _USAGE.size:
        raise ProtocolError("RESULT that does not tell what the job has used")
    usage = Usage._make(_USAGE.unpack_from(message.body))
    if not math.isfinite(usage.started + usage.ended + usage.cpu_s):
        raise ProtocolError("RESULT with wrong times")
    return usage


def read_usage(message: Message) -> tuple[Usage, Message]:
    """What the job has used, and the message as the payload's alone.

    Raises:
        ProtocolError: it does not tell. The caller still owns the descriptors.
    """
    return usage_of(message), message._replace(body=message.body[_USAGE.size :])


def replace_usage(message: Message, usage: Usage) -> Message:
    """The same RESULT with another usage."""
    return message._replace(body=_packed(usage) + message.body[_USAGE.size :])


def _packed(usage: Usage) -> bytes:
    try:
        return _USAGE.pack(*usage)
    except struct.error as error:
        raise ValueError(f"not what a job has used: {error}") from None
