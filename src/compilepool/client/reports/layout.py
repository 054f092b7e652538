"""Lays a report out so that it fits one screen, from parts that all reports have."""

from __future__ import annotations

import dataclasses
import os
import textwrap
from collections.abc import Callable, Sequence

from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.text import printable
from compilepool.wire.failure import Failure
from compilepool.wire.native_report import NativeReport

COLUMNS = 120
"""What a line may have."""

LINES = 24
"""What a message may have."""

_INDENT = "    "
_LABEL_COLUMNS = 11
PART_COLUMNS = COLUMNS - _LABEL_COLUMNS
"""What a line of a part may have, without its label."""


@dataclasses.dataclass
class Part:
    """One labelled part of a message.

    Attributes:
        label: at most eight letters.
        lines: all that could be shown.
        most: the lines of them that are shown at most.
        is_end_shown: whether the last ones are shown, not the first ones.
        remark: what to say, in a line of its own, if so many of the lines are not shown; "" to say
            nothing.
    """

    label: str
    lines: Sequence[str]
    most: int
    is_end_shown: bool = False
    remark: Callable[[int], str] = lambda _hidden: ""

    def rows(self) -> list[str]:
        """What is shown."""
        hidden = max(len(self.lines) - self.most, 0)
        shown = self.lines[hidden:] if self.is_end_shown else self.lines[: self.most]
        remark = self.remark(hidden)
        rows = [*(cut(line, PART_COLUMNS) for line in shown), *([remark] if remark else [])]
        return labelled(self.label, rows)


def screen(headline: Sequence[str], parts: Sequence[Part], end: Sequence[str]) -> str:
    """A message of at most `LINES` lines: the longest parts are shortened until it fits.

    Args:
        headline: its first lines.
        parts: what can be shortened. Their `most` is changed.
        end: its last lines.
    """
    room = LINES - len(headline) - len(end)
    while sum(len(part.rows()) for part in parts) > room:
        longest = max(parts, key=lambda part: min(part.most, len(part.lines)))
        longest.most = min(longest.most, len(longest.lines)) - 1
        if longest.most <= 0:
            break
    rows = [*headline, *(row for part in parts for row in part.rows()), *end]
    return "\n".join(printable(row).rstrip() for row in rows)


def labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Lines with a label before the first one."""
    return [f"  {'' if number else label:<8} {line}" for number, line in enumerate(lines)]


def sentence(pieces: Sequence[str], last: Sequence[str] = ()) -> list[str]:
    """The lines of a sentence, which is broken between its pieces where that is enough.

    Args:
        pieces: with their punctuation.
        last: the last piece, then shorter words for it, of which the first that still fits on the
            line is taken. If none does, it gets a line of its own.
    """
    lines = [""]
    for piece in pieces:
        _append(lines, piece)
    if last:
        room = COLUMNS - len(lines[-1]) - 1
        _append(lines, next((words for words in last if len(words) <= room), last[0]))
    return lines


def wrap(text: str, *, columns: int = PART_COLUMNS, most: int = 3) -> list[str]:
    """Text in at most so many lines."""
    return textwrap.wrap(
        text,
        columns,
        subsequent_indent="  ",
        max_lines=most,
        placeholder=" …",
        break_on_hyphens=False,
    )


def cut(line: str, columns: int) -> str:
    """A line without what is too much at its end."""
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


def cut_left(line: str, columns: int) -> str:
    """A line without what is too much at its start."""
    return line if len(line) <= columns else f"…{line[1 - columns :]}"


def _append(lines: list[str], piece: str) -> None:
    joined = f"{lines[-1]} {piece}" if lines[-1] else piece
    if len(joined) > COLUMNS and lines[-1] and len(piece) <= COLUMNS - len(_INDENT):
        lines.append(_INDENT + piece)
        return
    lines[-1:] = textwrap.wrap(
        joined, COLUMNS, subsequent_indent=_INDENT, break_on_hyphens=False
    ) or [""]


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
