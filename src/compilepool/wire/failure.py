"""Why a job ended without a result of its own: found by the supervisor, worded by the client."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

from compilepool.wire.messages import Kind, Message, ProtocolError, json_message, read_json


class Cause(StrEnum):
    """What went wrong."""

    CRASH = "crash"  # the worker died while it ran the job
    START = "start"  # workers die while they start, again and again
    FORK_SERVER = "fork server"  # the fork server died under the job, again
    PRELOAD = "preload"  # a preload module raised or crashed


@dataclasses.dataclass(frozen=True)
class Failure:
    """One failure.

    Attributes:
        cause: what went wrong.
        exitcode: of the process that died; negated signal number if a signal killed it; None if
            it could not be started, did not die, or nobody knows.
        module: the preload module, for PRELOAD.
        text: a Python traceback, or what the kernel said.
    """

    cause: Cause
    exitcode: int | None = None
    module: str = ""
    text: str = ""

    def message(self, id: int) -> Message:
        """The FAILED message for a job."""
        return json_message(Kind.FAILED, dataclasses.asdict(self), id=id)

    @classmethod
    def of_message(cls, message: Message) -> Failure:
        """The failure in a FAILED message. Raises `ProtocolError` if there is none."""
        try:
            fields = read_json(message.body)
            failure = cls(**{**fields, "cause": Cause(fields["cause"])})
        except (ValueError, TypeError, KeyError):
            raise ProtocolError("not a failure") from None
        texts = (failure.module, failure.text)
        if not isinstance(failure.exitcode, int | None) or not all(
            isinstance(text, str) for text in texts
        ):
            raise ProtocolError("a failure with wrong values")
        return failure


def last_crash(text: str) -> str:
    """The last of the tracebacks that faulthandler has written to a file."""
    start = text.rfind("Fatal Python error")
    return text[start:] if start >= 0 else ""


def describe(error: BaseException) -> str:
    """The error's type and text in one line, whatever its `__str__` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - the user's __str__
        return f"{type(error).__name__}: <str() raised>"
