"""Where a crash happened, in one call."""

from __future__ import annotations

import dataclasses
import re

from compilepool.text import printable
from compilepool.wire.failure import CRASH_HEAD, Failure
from compilepool.wire.native_report import (
    UNKNOWN,
    Frame,
    NativeReport,
    is_of_runtime,
    telling_frames,
)

TOP_FRAMES = 6
"""How many native frames a message has room for."""

_FUNCTION_COLUMNS = 70
_PYTHON_FRAME = re.compile(r' +File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.+)')
_CURRENT = "Current thread "


@dataclasses.dataclass(frozen=True)
class CrashPlace:
    """The call that a crash is best named by.

    Attributes:
        function: its name; empty if it is unknown.
        position: "library+offset" of a native one, "file:line" of Python's; empty if unknown.
    """

    function: str = ""
    position: str = ""

    def __str__(self) -> str:
        if self.function and self.position:
            return f"{self.function} ({self.position})"
        return self.function or self.position


def crash_place(failure: Failure, report: NativeReport) -> CrashPlace:
    """Where a crash happened: by the native stack if there is one, else by Python's.

    Args:
        failure: what the supervisor has found.
        report: the one in `failure.native`.
    """
    thread = report.threads[0] if report.threads else None
    if thread is not None and thread.is_crashed and thread.frames:
        frame = _culprit(telling_frames(thread))
        return CrashPlace(short_name(frame), position(frame))
    if report.crash is not None and report.crash.library:
        return CrashPlace(position=f"{report.crash.library}+{report.crash.offset:#x}")
    return _python_place(failure.text)


def python_blocks(text: str) -> list[list[str]]:
    """The lines of each thread in what faulthandler wrote of a crash, the crashed one's first."""
    if not text.startswith(CRASH_HEAD):
        return []
    blocks = [block.strip("\n").split("\n") for block in text.split("\n\n")]
    threads = [block for block in blocks if block[0].startswith((_CURRENT, "Thread 0x"))]
    return sorted(threads, key=lambda block: not is_current(block))


def is_current(block: list[str]) -> bool:
    """Whether a thread of `python_blocks` is the one that crashed."""
    return block[0].startswith(_CURRENT)


def short_name(frame: Frame) -> str:
    """The name of a frame's function, which may be a screen long in C++."""
    name = frame.function
    return name if len(name) <= _FUNCTION_COLUMNS else f"{name[: _FUNCTION_COLUMNS - 1]}…"


def position(frame: Frame) -> str:
    """Where a frame's instruction is."""
    return f"{frame.library}+{frame.offset:#x}" if frame.library else f"{frame.pc:#x}, not mapped"


def _culprit(frames: list[Frame]) -> Frame:
    """The first frame with a name that is not the runtime's, if one of the first ones is such."""
    first = frames[:TOP_FRAMES]
    named = [frame for frame in first if frame.function != UNKNOWN]
    return next((frame for frame in named if not is_of_runtime(frame)), (named or first)[0])


def _python_place(text: str) -> CrashPlace:
    for block in python_blocks(text)[:1]:
        if is_current(block) and len(block) > 1 and (found := _PYTHON_FRAME.match(block[1])):
            file = found["file"].rpartition("/")[2]
            return CrashPlace(printable(found["function"]), printable(f"{file}:{found['line']}"))
    return CrashPlace()
