"""Words for what went wrong: a job's failure or outcome as the exception that its future gets."""

from __future__ import annotations

import json
from typing import Any

from compilepool.client.crash_text import crash_text, died
from compilepool.errors import (
    CompilePoolError,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    WorkerCrashed,
)
from compilepool.wire.failure import CRASH_HEAD, Cause, Failure, describe
from compilepool.wire.messages import Outcome, ProtocolError
from compilepool.wire.native_report import NativeReport, native_traceback
from compilepool.wire.payloads import Payload, Unpacked
from compilepool.wire.serializers import Serializer, load


def error_of(
    failure: Failure, job: str, log: str = "", *, folder: str = "", unkept: str = ""
) -> CompilePoolError:
    """The error for a job that ended without an outcome of its own.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.
        folder: the crash folder that was made of it.
        unkept: why there is none, if that is worth saying.
    """
    how = died(failure.exitcode)
    detail = f"\n{failure.text.rstrip()}" if failure.text else ""
    if failure.cause is Cause.PRELOAD:
        return PreloadFailed(_preload_message(failure, job, how), **_preload_fields(failure))
    if failure.cause is Cause.CRASH:
        message = crash_text(failure, job, log, folder=folder, unkept=unkept)
    elif failure.cause is Cause.FORK_SERVER:
        message = (
            f"the fork server {how} while job {job!r} ran, and that for the second time;"
            f" find out what kills it (the kernel log names an out-of-memory kill){detail}"
        )
    else:
        during = f" while it imported {failure.module!r}" if failure.module else ""
        message = (
            f"job {job!r} has no worker to run it: five times in a row one could not be started,"
            f" the last time its process {how}{during}; see what the initializer, the preload and"
            f" the machine's limits do{detail}"
        )
    is_signal = failure.exitcode is not None and failure.exitcode < 0
    return WorkerCrashed(
        message,
        job=job,
        signal=-failure.exitcode if is_signal and failure.exitcode else None,
        exitcode=None if is_signal else failure.exitcode,
        python_traceback=failure.text if failure.text.startswith(CRASH_HEAD) else "",
        native_traceback=native_traceback(NativeReport.of_lines(failure.native.encode())),
        log=log,
        phase=failure.phase,
        folder=folder,
    )


def report_text(error: CompilePoolError) -> str:
    """All that is known of a crash, as text."""
    parts = [str(error)]
    for title in ("native_traceback", "python_traceback", "log"):
        if text := getattr(error, title, "").rstrip():
            parts.append(f"{title.replace('_', ' ').capitalize()}:\n\n{text}")
    return "\n\n".join(parts) + "\n"


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
    with Unpacked(payload) as unpacked:
        if outcome == Outcome.RETURNED:
            try:
                return load(unpacked.stream, unpacked.buffers, serializer), None
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
        exception = load(memoryview(stream), buffers, None)
        if not isinstance(exception, BaseException):
            raise TypeError(f"it unpickled as a {type(exception).__name__}")
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        return _not_loaded(f"the exception, a {head['type']},", job, error, head["traceback"])
    # Not by its own __setattr__: it may be a frozen dataclass.
    BaseException.__setattr__(exception, "__cause__", RemoteTraceback(head["traceback"], log))
    return exception


def _unserializable(head: dict[str, str], job: str, log: str) -> SerializationError:
    if head["what"] == "the call":
        message = (
            f"job {job!r} could not be unpickled in the worker: {head['reason']};"
            " what it is made of must be importable there"
        )
    else:
        message = (
            f"job {job!r}: {head['what']}, a {head['type']}, could not be pickled:"
            f" {head['reason']}; have the job return or raise plain data"
        )
    error = SerializationError(message)
    error.__cause__ = RemoteTraceback(head["traceback"], log)
    return error


def _not_loaded(what: str, job: str, cause: BaseException, text: str) -> SerializationError:
    detail = f"\nIts traceback in the worker:\n{text}" if text else ""
    error = SerializationError(
        f"job {job!r}: {what} could not be unpickled here: {describe(cause)};"
        f" its type must unpickle in the process that submitted the job{detail}"
    )
    error.__cause__ = cause
    return error


def _head(data: bytes) -> dict[str, str]:
    try:
        head = json.loads(data)
        return {key: str(head.get(key)) for key in ("what", "type", "reason", "traceback")}
    except (ValueError, AttributeError, RecursionError):
        raise ProtocolError("not the head of an outcome") from None


def _preload_message(failure: Failure, job: str, how: str) -> str:
    happened = "could not be imported" if failure.exitcode is None else f"{how} when imported"
    subject, advice = f"preload module {failure.module!r} {happened}", "mend it or leave it out"
    if not failure.module:
        subject, advice = f"the fork server {how} while starting", "see what it wrote to stderr"
    detail = f"\n{failure.text.rstrip()}" if failure.text else ""
    return f"{subject}, so job {job!r} has no worker; {advice}, and make a new pool{detail}"


def _preload_fields(failure: Failure) -> dict[str, str]:
    return {"module": failure.module, "python_traceback": failure.text}
