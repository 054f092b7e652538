"""The message of an error whose job went over a limit, on one screen."""

from __future__ import annotations

from compilepool.client.reports.layout import Part, labelled, screen, sentence
from compilepool.client.reports.parts import (
    before_lines,
    children_part,
    frames_of_job,
    missing_part,
    native_part,
    output_part,
    phase_part,
    python_part,
    quoted,
    thread_of_job,
)
from compilepool.client.reports.place import job_place
from compilepool.text import size_text
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.native_report import NativeReport


def limit_text(failure: Failure, job: str, log: str) -> str:
    """The message of the error of a job that went over its timeout or its memory limit.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.

    Returns:
        At most 24 lines of at most 120 columns: a sentence that says what happened, then the top
        of each part of the report.
    """
    report = NativeReport.of_lines(failure.native.encode())
    memory = [f"{size_text(each.bytes)} {each.name} ({each.pid})" for each in failure.processes]
    parts = [
        phase_part(failure),
        Part("memory", memory, len(memory)),
        children_part(report),
        native_part(report, report.threads[0] if report.threads else None),
        python_part(frames_of_job(thread_of_job(failure.text))),
        output_part(log),
        missing_part(report),
    ]
    end = before_lines(failure)
    end += labelled("pool", ["only this job is lost, and the pool works on"])
    if failure.cause is Cause.MEMORY:
        return screen(_of_memory(failure, quoted(job)), parts, end)
    return screen(_of_timeout(failure, str(job_place(failure, report)), quoted(job)), parts, end)


def _of_timeout(failure: Failure, place: str, job: str) -> list[str]:
    pieces = [
        f"job {job} ran longer than its timeout of {failure.limit:g} s,",
        "and was ended with all that it had started;",
        "raise timeout, or see where it stood",
    ]
    if place:
        pieces[-1] += ":"
    return sentence(pieces, [f"in {place}"] if place else [])


def _of_memory(failure: Failure, job: str) -> list[str]:
    return sentence(
        [
            f"job {job} took {size_text(failure.peak_bytes)} of memory,",
            f"more than its memory_limit of {size_text(failure.limit)},",
            "and was ended with all that it had started;",
            "raise memory_limit, or have it take less",
        ]
    )
