"""What a future gets: the result of its job, or an exception."""

from __future__ import annotations

import pickle

from compilepool.errors import CompilePoolError, RemoteTraceback, SerializationError
from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple
from compilepool.text import describe
from compilepool.wire.messages import Form, Outcome, ProtocolError
from compilepool.wire.payloads import Payload, Unpacked
from compilepool.wire.serializers import Serializer, load, load_payload

if TYPE_CHECKING:
    from compilepool.client.reports.errors import Keep
    from compilepool.wire.failure import Failure


def of_failure(
    failure: Failure, job: str, log: str = "", keep: Keep | None = None
) -> CompilePoolError:
    """The error of a job that ended without a result or an exception of its own.

    This never raises, because the job must end. For the arguments, see `reports.errors.error_of`.
    """
    try:
        from compilepool.client.reports import errors

        return errors.error_of(failure, job, log, keep)
    except BaseException as reason:  # noqa: BLE001 - whatever it is, the job must end
        return _without_report(job, reason)


def _without_report(job: str, reason: BaseException) -> CompilePoolError:
    text = (
        f"the worker that ran job {job!r} crashed, but its report could not be read here:"
        f" {describe(reason)}"
    )
    try:
        from compilepool.errors import WorkerCrashed
    except (ImportError, OSError, RuntimeError):
        # Too many files are open to import it; or the interpreter shuts down, and multiprocessing,
        # which it needs, cannot be imported any more.
        return CompilePoolError(text)
    return WorkerCrashed(text, job=job)


class PackedOutcome(NamedTuple):
    """What a job's RESULT holds, as it came: `resolve` makes a result or an exception of it.

    Attributes:
        outcome: how the call ended.
        payload: has the result or the exception, without a descriptor.
    """

    outcome: int
    payload: Payload


def keep_packed(outcome: int, payload: Payload, *_: object) -> tuple[PackedOutcome, None]:
    """Stands in for `resolve` where another process unpickles. The payload is closed.

    Raises:
        ProtocolError: the payload cannot be read.
    """
    return PackedOutcome(outcome, payload.spill()), None


def resolve(
    outcome: int, payload: Payload, job: str, serializer: Serializer | None, log: str = ""
) -> tuple[Any, BaseException | None]:
    """What is in the payload of a RESULT, which is closed.

    The error is returned, not raised: a traceback through this code would tell the user nothing,
    and keep alive what its frames hold.

    Returns:
        The result and None; or None and the job's exception, or a SerializationError if there is
        no result or exception that could be had.

    Raises:
        ProtocolError: the payload is malformed.
    """
    if outcome == Outcome.RETURNED and payload.form is Form.INLINE:
        try:
            return load_payload(payload, serializer), None
        except BaseException as error:  # noqa: BLE001 - runs the user's code
            return None, _not_loaded("the result", job, error, "")
    with Unpacked(payload, may_be_written_again=True) as unpacked:
        if outcome == Outcome.RETURNED:
            try:
                return load(unpacked, serializer), None
            except BaseException as error:  # noqa: BLE001 - runs the user's code
                return None, _not_loaded("the result", job, error, "")
        head = _head(bytes(unpacked.stream))
        if outcome == Outcome.RAISED and unpacked.buffers:
            return None, _exception(unpacked.buffers, head, job, log)
    return None, _unserializable(head, job, log)


def _exception(
    sections: list[bytearray], head: dict[str, str], job: str, log: str
) -> BaseException:
    stream, *buffers = sections
    try:
        exception = pickle.loads(stream, buffers=buffers)
        if not isinstance(exception, BaseException):
            raise TypeError(f"it unpickled as a {type(exception).__name__}")
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        return _not_loaded(f"the exception, a {head['type']},", job, error, head["traceback"])
    # Not by its own __setattr__: it may be a frozen dataclass.
    BaseException.__setattr__(exception, "__cause__", RemoteTraceback(head["traceback"], log))
    return exception


def _unserializable(head: dict[str, str], job: str, log: str) -> SerializationError:
    if head["what"] == "the call":
        hint = "; what it is made of must be importable there" if _lacks_a_name(head) else ""
        message = f"job {job!r} could not be unpickled in the worker: {head['reason']}{hint}"
    else:
        message = (
            f"job {job!r}: {head['what']}, a {head['type']}, could not be pickled:"
            f" {head['reason']}; have the job return or raise plain data"
        )
    error = SerializationError(message)
    error.__cause__ = RemoteTraceback(head["traceback"], log)
    return error


def _lacks_a_name(head: dict[str, str]) -> bool:
    """Whether unpickling failed because a module, or a name in it, is not there."""
    is_pickles = head["reason"].startswith(
        "AttributeError: Can't get attribute"
    )  # Modules/_pickle.c
    return is_pickles or head["type"] in ("builtins.ImportError", "builtins.ModuleNotFoundError")


def _not_loaded(what: str, job: str, cause: BaseException, text: str) -> SerializationError:
    detail = f"\nIts traceback in the worker:\n{text}" if text else ""
    error = SerializationError(
        f"job {job!r}: {what} could not be unpickled here: {describe(cause)};"
        f" its type must unpickle in the process that submitted the job{detail}"
    )
    error.__cause__ = cause
    return error


def _head(data: bytes) -> dict[str, str]:
    import json

    try:
        head = json.loads(data)
        return {key: str(head.get(key)) for key in ("what", "type", "reason", "traceback")}
    except (ValueError, AttributeError, RecursionError):
        raise ProtocolError("not the head of an outcome") from None
