"""Words for a job that went over a limit, on one screen."""

from __future__ import annotations

import re

from compilepool.client.reports.layout import (
    PART_COLUMNS,
    Part,
    count,
    cut,
    frames_of_job,
    in_traceback,
    labelled,
    missing_part,
    output_part,
    phase_part,
    quoted,
    screen,
    sentence,
)
from compilepool.client.reports.place import TOP_FRAMES, CrashPlace, position, short_name
from compilepool.text import size_text
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.native_report import UNKNOWN, NativeReport, is_of_runtime

_PYTHON_FRAMES = 4
_CHILDREN = 4
_AFTER_COMMAND = 40  # columns
_TELLING_FRAMES = 3
_FRAME = re.compile(r'File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.+)')
_OF_PYTHON = ("python", "libpython")


def limit_text(failure: Failure, job: str, log: str) -> str:
    """What the error of a job says that went over its timeout or its memory limit.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.

    Returns:
        At most 24 lines, of at most 120 columns: a sentence that says what happened, then the top
        of each part of the report.
    """
    report = NativeReport.of_lines(failure.native.encode())
    frames = _python_frames(failure.text)
    memory = [f"{size_text(each.bytes)} {each.name} ({each.pid})" for each in failure.processes]
    parts = [
        phase_part(failure),
        Part("memory", memory, len(memory)),
        _children(report),
        _native(report),
        Part(
            "python",
            frames,
            _PYTHON_FRAMES,
            remark=lambda hidden: in_traceback(hidden, "more frame"),
        ),
        output_part(log),
        missing_part(report),
    ]
    end = labelled("pool", ["only this job is lost, and the pool works on"])
    if failure.cause is Cause.MEMORY:
        return screen(_of_memory(failure, quoted(job)), parts, end)
    return screen(_of_timeout(failure, _place(report, frames), quoted(job)), parts, end)


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


def _place(report: NativeReport, python_frames: list[str]) -> str:
    """The call that the job stood in: a native one below Python, else Python's."""
    for frame in (report.threads[0].frames if report.threads else [])[:_TELLING_FRAMES]:
        if frame.library is None or frame.library.startswith(_OF_PYTHON):
            break
        if frame.function != UNKNOWN and not is_of_runtime(frame):
            return str(CrashPlace(short_name(frame), position(frame)))
    if python_frames and (found := _FRAME.match(python_frames[0])):
        file = found["file"].rpartition("/")[2]
        return str(CrashPlace(found["function"], f"{file}:{found['line']}"))
    return ""


def _python_frames(text: str) -> list[str]:
    """Those of the thread that runs the job: faulthandler begins with the youngest thread."""
    blocks = [block.strip("\n").split("\n") for block in text.split("\n\n")]
    threads = [block for block in blocks if block[0].startswith(("Thread 0x", "Current thread"))]
    return frames_of_job(threads[-1]) if threads else []


def _native(report: NativeReport) -> Part:
    frames = report.threads[0].frames if report.threads else []
    lines = [
        f"#{number} {short_name(each)} ({position(each)})" for number, each in enumerate(frames)
    ]
    others = count(len(report.threads) - 1, "other thread")

    def remark(hidden: int) -> str:
        more = " and ".join([*count(hidden, "more frame"), *others])
        return f"({more} in .native_traceback)" if more else ""

    return Part("native", lines, TOP_FRAMES, remark=remark)


def _children(report: NativeReport) -> Part:
    lines = [
        f"{cut(child.command, PART_COLUMNS - _AFTER_COMMAND)}"
        f" ({child.age_s:.3g} s old, {child.cpu_s:.3g} s of CPU)"
        for child in report.children
    ]
    return Part(
        "children",
        lines,
        _CHILDREN,
        remark=lambda hidden: f"({hidden} more in .children)" if hidden else "",
    )
