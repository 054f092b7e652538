"""The one call that a crash, or a job that takes too long, is best named by."""

from __future__ import annotations

import dataclasses
import os

from compilepool.client.reports.parts import (
    TOP_FRAMES,
    frames_of_job,
    position,
    short_name,
    thread_of_job,
)
from compilepool.text import printable
from compilepool.wire.failure import Failure
from compilepool.wire.native_report import (
    UNKNOWN,
    Frame,
    NativeReport,
    is_of_runtime,
    telling_frames,
)
from compilepool.wire.python_stack import PythonFrame, crashed_thread

_TELLING_FRAMES = 3
_OF_PYTHON = ("python", "libpython")


@dataclasses.dataclass(frozen=True)
class Place:
    """A call.

    Attributes:
        function: its name; empty if it is unknown.
        position: "library+offset" in native code, "file:line" in Python; empty if unknown.
    """

    function: str = ""
    position: str = ""

    def __str__(self) -> str:
        if self.function and self.position:
            return f"{self.function} ({self.position})"
        return self.function or self.position


def crash_place(failure: Failure, report: NativeReport) -> Place:
    """Where a crash happened: by the native stack if there is one, else by Python's.

    Args:
        failure: what the supervisor has found.
        report: the one in `failure.native`.
    """
    thread = report.threads[0] if report.threads else None
    if thread is not None and thread.is_crashed and thread.frames:
        return _native_place(_culprit(telling_frames(thread)))
    if report.crash is not None and report.crash.library:
        return Place(position=f"{report.crash.library}+{report.crash.offset:#x}")
    of_python = crashed_thread(failure.text)
    if of_python is not None and of_python.is_current:
        return _python_place(of_python.frames)
    return Place()


def job_place(failure: Failure, report: NativeReport) -> Place:
    """Where a job stood: a native call below Python's interpreter if there is one, else Python's.

    Args:
        failure: what the supervisor has found.
        report: the one in `failure.native`.
    """
    for frame in (report.threads[0].frames if report.threads else [])[:_TELLING_FRAMES]:
        if frame.library is None or frame.library.startswith(_OF_PYTHON):
            break
        if frame.function != UNKNOWN and not is_of_runtime(frame):
            return _native_place(frame)
    return _python_place(frames_of_job(thread_of_job(failure.text)))


def _culprit(frames: list[Frame]) -> Frame:
    """The first frame with a name that is not the runtime's, if one of the first ones is such."""
    first = frames[:TOP_FRAMES]
    named = [frame for frame in first if frame.function != UNKNOWN]
    return next((frame for frame in named if not is_of_runtime(frame)), (named or first)[0])


def _native_place(frame: Frame) -> Place:
    return Place(short_name(frame), position(frame))


def _python_place(frames: list[PythonFrame]) -> Place:
    if not frames or not frames[0].function:
        return Place()
    file, line, function = os.path.basename(frames[0].file), frames[0].line, frames[0].function
    return Place(printable(function), printable(f"{file}:{line}"))
