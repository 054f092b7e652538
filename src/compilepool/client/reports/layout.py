"""Lays a report out so that it fits one screen."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence

from compilepool.text import printable

COLUMNS = 120
"""The longest line of a message."""

LINES = 24
"""The longest message."""

INDENT = "    "
"""Before each line of the first sentence but its first one."""

_LABEL_COLUMNS = 11
PART_COLUMNS = COLUMNS - _LABEL_COLUMNS
"""The longest line of a part, without its label."""


@dataclasses.dataclass
class Part:
    """One labelled part of a message.

    Attributes:
        label: at most eight letters.
        lines: all that could be shown.
        most: how many of the lines are shown at most.
        is_end_shown: whether the last lines are shown, instead of the first.
        remark: returns an extra line for a number of lines that are not shown; "" for none.
    """

    label: str
    lines: Sequence[str]
    most: int
    is_end_shown: bool = False
    remark: Callable[[int], str] = lambda _hidden: ""

    def rows(self) -> list[str]:
        """The lines of the message that show this part."""
        hidden = max(len(self.lines) - self.most, 0)
        shown = self.lines[hidden:] if self.is_end_shown else self.lines[: self.most]
        remark = self.remark(hidden)
        rows = [*(cut(line, PART_COLUMNS) for line in shown), *([remark] if remark else [])]
        return labelled(self.label, rows)


def screen(headline: Sequence[str], parts: Sequence[Part], end: Sequence[str]) -> str:
    """A message of at most `LINES` lines. The longest parts are shortened until it fits.

    Args:
        headline: the first lines.
        parts: the parts in the middle. Their `most` is changed.
        end: the last lines.
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
    """The lines of a sentence, which is broken between its pieces if possible.

    Args:
        pieces: the pieces of the sentence, with their punctuation.
        last: versions of the last piece, the longest first. The first one that fits on the line is
            taken. If none fits, the longest one gets a line of its own.
    """
    lines = [""]
    for piece in pieces:
        _append(lines, piece)
    if last:
        room = COLUMNS - len(lines[-1]) - 1
        _append(lines, next((words for words in last if len(words) <= room), last[0]))
    return lines


def wrap(text: str, *, columns: int = PART_COLUMNS, most: int = 3) -> list[str]:
    """Text in lines of at most `columns` columns, of which at most `most` are returned."""
    return textwrap.wrap(
        text,
        columns,
        subsequent_indent="  ",
        max_lines=most,
        placeholder=" …",
        break_on_hyphens=False,
    )


def cut(line: str, columns: int) -> str:
    """A line of at most `columns` columns, cut at its end."""
    return line if len(line) <= columns else f"{line[: columns - 1]}…"


def cut_left(line: str, columns: int) -> str:
    """A line of at most `columns` columns, cut at its start."""
    return line if len(line) <= columns else f"…{line[1 - columns :]}"


def _append(lines: list[str], piece: str) -> None:
    joined = f"{lines[-1]} {piece}" if lines[-1] else piece
    if len(joined) > COLUMNS and lines[-1] and len(piece) <= COLUMNS - len(INDENT):
        lines.append(INDENT + piece)
        return
    lines[-1:] = textwrap.wrap(
        joined, COLUMNS, subsequent_indent=INDENT, break_on_hyphens=False
    ) or [""]
