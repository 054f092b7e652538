"""A job's failure as the exception that its future gets, and as the report in its crash folder."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from compilepool.client.reports.crash import failure_text
from compilepool.client.reports.layout import INDENT
from compilepool.client.reports.place import crash_place
from compilepool.errors import (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    PoolClosed,
    PreloadFailed,
    SupervisorDied,
)
from compilepool.light_typing import Any, TypeAlias
from compilepool.text import describe, died, printable
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.native_report import NativeReport, native_traceback
from compilepool.wire.python_stack import is_crash

Keep: TypeAlias = Callable[[dict[str, Any], str], str]
"""Makes the crash folder of a job. It is called with the facts of the crash, as JSON can hold them,
and with the text that tells people the same; it returns the path of the folder."""


def error_of(
    failure: Failure, job: str, log: str = "", keep: Keep | None = None
) -> CompilePoolError:
    """The error of a job that ended without a result or an exception of its own.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.
        keep: makes the crash folder, which the error then names; None if none is wanted. If `keep`
            raises, the error says why there is no folder.
    """
    error = _error(failure, job, log)
    if keep is None:
        return error
    facts = {
        **failure._asdict(),
        **error.__dict__,
        "message": str(error),
        "where": place_of(failure),
    }
    del facts["text"], facts["folder"], facts["kept_by"]
    try:
        folder = keep(facts, report_text(error))
    except Exception as reason:  # noqa: BLE001 - the crash itself can still be told
        unkept = f"its crash folder could not be written: {describe(reason)}"
        return _error(failure, job, log, unkept=unkept)
    return _error(failure, job, log, folder=folder)


def _error(
    failure: Failure, job: str, log: str, *, folder: str = "", unkept: str = ""
) -> CompilePoolError:
    message = failure_text(failure, job, log, folder=folder, unkept=unkept)
    report = NativeReport.of_lines(failure.native.encode())
    native, missing = native_traceback(report), tuple(report.missing)
    if failure.cause is Cause.PRELOAD:
        return PreloadFailed(
            message,
            module=failure.module,
            python_traceback=failure.text,
            native_traceback=native,
            missing=missing,
        )
    known: dict[str, Any] = {
        "job": job,
        "phase": failure.phase,
        "native_traceback": native,
        "log": log,
        "missing": missing,
        "jobs_before": failure.jobs_before,
        "last_job": failure.last_job,
    }
    if failure.cause is Cause.TIMEOUT:
        return JobTimeout(
            message,
            limit=failure.limit,
            python_traceback=failure.text,
            children=tuple(report.children),
            **known,
        )
    if failure.cause is Cause.MEMORY:
        return MemoryLimitExceeded(
            message,
            limit=int(failure.limit),
            peak=failure.peak_bytes,
            python_traceback=failure.text,
            processes=failure.processes,
            **known,
        )
    from compilepool.errors import WorkerCrashed

    is_signal = failure.exitcode is not None and failure.exitcode < 0
    return WorkerCrashed(
        message,
        signal=-failure.exitcode if is_signal and failure.exitcode else None,
        exitcode=None if is_signal else failure.exitcode,
        python_traceback=failure.text if is_crash(failure.text) else "",
        folder=folder,
        **known,
    )


def headline_of(error: CompilePoolError) -> str:
    """The first sentence of an error's message, in one line."""
    first, *more = str(error).split("\n")
    rest = itertools.takewhile(lambda line: line.startswith(INDENT), more)
    return " ".join([first, *(line.strip() for line in rest)])


def place_of(failure: Failure) -> str:
    """The call that a crash is best named by; empty if it is unknown."""
    return str(crash_place(failure, NativeReport.of_lines(failure.native.encode())))


def report_text(error: CompilePoolError) -> str:
    """All that is known about a crash, as text that is safe to print on a terminal."""
    parts = [str(error)]
    for title in ("native_traceback", "python_traceback", "log"):
        if text := getattr(error, title, "").rstrip():
            parts.append(f"{title.replace('_', ' ').capitalize()}:\n\n{text}")
    if missing := getattr(error, "missing", ()):
        parts.append("\n".join(["Missing:", "", *missing]))
    return printable("\n\n".join(parts), keeps_newlines=True) + "\n"


def ended_with_pool(job: str) -> PoolClosed:
    """The error of a job whose pool was terminated."""
    return PoolClosed(f"job {job!r} was ended with its pool, before it had a result")


def killed(job: str) -> PoolClosed:
    """The error of a job that ran when the user called `kill_workers`."""
    try:
        from compilepool.errors import WorkersKilled
    except RuntimeError:  # while the interpreter exits, multiprocessing cannot be imported any more
        return ended_with_pool(job)
    return WorkersKilled(f"job {job!r} was ended by kill_workers, before it had a result")


def supervisor_died(
    job: str, exitcode: int | None, trouble: str, *, was_resubmitted: bool
) -> SupervisorDied:
    """The error of a job that has lost its supervisor more often than it may.

    Args:
        job: the job's name.
        exitcode: the supervisor's exit code, or negated signal number; None if unknown.
        trouble: why this process has killed it; "" if it has not.
        was_resubmitted: whether the job had lost another one before.
    """
    after = ", after the one before had died, too" if was_resubmitted else ""
    what = f"was killed, because {trouble}," if trouble else died(exitcode)
    return SupervisorDied(
        f"the supervisor {what} under job {job!r}{after};"
        " find out what ends it, and submit the job again"
    )
