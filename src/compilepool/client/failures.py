"""Words for what went wrong: a job's failure or outcome as the exception that its future gets."""

from __future__ import annotations

import json
import pickle

from compilepool.client.crash_place import crash_place
from compilepool.client.crash_text import died, failure_text
from compilepool.errors import (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    PoolClosed,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    SupervisorDied,
    WorkerCrashed,
)
from compilepool.wire.failure import CRASH_HEAD, Cause, Failure, describe
from compilepool.wire.light_typing import Any
from compilepool.wire.messages import Form, Outcome, ProtocolError
from compilepool.wire.native_report import NativeReport, native_traceback
from compilepool.wire.payloads import Payload, Unpacked
from compilepool.wire.serializers import Serializer, load, load_payload
from compilepool.wire.text import printable


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
    message = failure_text(failure, job, log, folder=folder, unkept=unkept)
    if failure.cause in (Cause.TIMEOUT, Cause.MEMORY):
        return _over_limit(message, failure, job, log)
    report = NativeReport.of_lines(failure.native.encode())
    if failure.cause is Cause.PRELOAD:
        return PreloadFailed(
            message,
            module=failure.module,
            python_traceback=failure.text,
            native_traceback=native_traceback(report),
            missing=tuple(report.missing),
        )
    is_signal = failure.exitcode is not None and failure.exitcode < 0
    return WorkerCrashed(
        message,
        job=job,
        signal=-failure.exitcode if is_signal and failure.exitcode else None,
        exitcode=None if is_signal else failure.exitcode,
        python_traceback=failure.text if failure.text.startswith(CRASH_HEAD) else "",
        native_traceback=native_traceback(report),
        log=log,
        phase=failure.phase,
        folder=folder,
        missing=tuple(report.missing),
    )


def _over_limit(message: str, failure: Failure, job: str, log: str) -> CompilePoolError:
    report = NativeReport.of_lines(failure.native.encode())
    known: dict[str, Any] = {
        "job": job,
        "phase": failure.phase,
        "python_traceback": failure.text,
        "native_traceback": native_traceback(report),
        "log": log,
        "missing": tuple(report.missing),
    }
    if failure.cause is Cause.TIMEOUT:
        children = tuple(report.children)
        return JobTimeout(message, limit=failure.limit, children=children, **known)
    return MemoryLimitExceeded(
        message,
        limit=int(failure.limit),
        peak=failure.peak_bytes,
        processes=failure.processes,
        **known,
    )


def place_of(failure: Failure) -> str:
    """The call that a crash is best named by; "" if it is unknown."""
    return str(crash_place(failure, NativeReport.of_lines(failure.native.encode())))


def report_text(error: CompilePoolError) -> str:
    """All that is known of a crash, as text that a terminal may be shown."""
    parts = [str(error)]
    for title in ("native_traceback", "python_traceback", "log"):
        if text := getattr(error, title, "").rstrip():
            parts.append(f"{title.replace('_', ' ').capitalize()}:\n\n{text}")
    if missing := getattr(error, "missing", ()):
        parts.append("\n".join(["Missing:", "", *missing]))
    return printable("\n\n".join(parts), keeps_newlines=True) + "\n"


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


def ended_with_pool(job: str) -> PoolClosed:
    """The error for a job whose pool was terminated."""
    return PoolClosed(f"job {job!r} was ended with its pool, before it had a result")


def supervisor_died(job: str, exitcode: int | None, *, was_resubmitted: bool) -> SupervisorDied:
    """The error for a job under which one supervisor too many has died."""
    after = ", after the one before had died, too" if was_resubmitted else ""
    return SupervisorDied(
        f"the supervisor {died(exitcode)} under job {job!r}{after};"
        " find out what ends it, and submit the job again"
    )


def of_another_process(job: str) -> PoolClosed:
    """The error for a future in a process that was forked from the one that submitted its job."""
    return PoolClosed(
        f"job {job!r} belongs to the process that submitted it, which this one was forked from;"
        " make a new pool here"
    )
