"""The parts that the messages of all dead jobs have."""

from __future__ import annotations

import os

from compilepool.client.screen import PART_COLUMNS, Part, cut, cut_left, wrap
from compilepool.wire.failure import Failure
from compilepool.wire.native_report import NativeReport
from compilepool.wire.spawn import PACKAGE_ROOT

_NAME_COLUMNS = 80
_LOG_LINES = 4
_OURS = tuple(
    f'  File "{os.path.join(PACKAGE_ROOT, "compilepool", folder)}{os.sep}'
    for folder in ("worker", "forkserver", "wire")
)


def quoted(name: str) -> str:
    """A name in quotes, without what is too much of it for a message."""
    return cut(repr(name), _NAME_COLUMNS)


def phase_part(failure: Failure) -> Part:
    """What the job had said that it does."""
    words = f"{failure.phase}, for {failure.phase_s:.3g} s"
    return Part("phase", [words] if failure.phase else [], 1)


def output_part(log: str) -> Part:
    """The end of what it has written."""
    lines = [line for line in log.split("\n") if line.strip()]
    return Part("output", lines[-_LOG_LINES:], _LOG_LINES, is_end_shown=True)


def missing_part(report: NativeReport) -> Part:
    """What the report lacks."""
    lines = [line for each in report.missing for line in wrap(each)]
    return Part(
        "missing", lines, len(lines), remark=lambda hidden: "(more in .missing)" if hidden else ""
    )


def frames_of_job(block: list[str]) -> list[str]:
    """The frames of a thread as faulthandler has written it, without those of the pool's own."""
    frames = [line.strip() for line in block[1:] if not line.startswith(_OURS)]
    return [cut_left(frame, PART_COLUMNS) for frame in frames]


def count(number: int, what: str) -> list[str]:
    """So many of them in words; nothing if there is none."""
    return [f"{number} {what}{'' if number == 1 else 's'}"] if number > 0 else []


def in_traceback(hidden: int, what: str) -> str:
    """Where the frames are that are not shown."""
    return "".join(f"({words} in .python_traceback)" for words in count(hidden, what))
