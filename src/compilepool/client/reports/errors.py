"""Words for what went wrong: a job's failure as the exception that its future gets."""

from __future__ import annotations

from compilepool.client.reports.crash import died, failure_text
from compilepool.client.reports.place import crash_place
from compilepool.errors import (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    PoolClosed,
    PreloadFailed,
    SupervisorDied,
)
from compilepool.light_typing import Any
from compilepool.text import printable
from compilepool.wire.failure import CRASH_HEAD, Cause, Failure
from compilepool.wire.native_report import NativeReport, native_traceback


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
    from compilepool.errors import WorkerCrashed

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
