"""Terminals for tests: what is shown on them."""

from __future__ import annotations

import io
from typing import Any

import pyte
from rich.console import Console
from rich.progress import Progress

COLUMNS, ROWS = 100, 60


class Screen:
    """What a terminal shows of the bytes that it gets."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.received = b""

    def feed(self, data: bytes) -> None:
        self.received += data
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """Those that are not empty."""
        return [line.strip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def has_cursor(self) -> bool:
        return not self._screen.cursor.hidden


class Drawn(io.StringIO):
    """A file that is a terminal, says the one who has it draw."""

    @property
    def screen(self) -> Screen:
        screen = Screen()
        screen.feed(self.getvalue().replace("\n", "\r\n").encode())
        return screen


def progress_on(file: io.TextIOBase, **options: Any) -> Progress:
    console = Console(
        file=file,  # type: ignore[arg-type] # which asks for more than it needs
        force_terminal=True,
        width=COLUMNS,
        height=ROWS,
        _environ={"TERM": "xterm-256color"},
    )
    # pytest has output and error output.
    options = {"redirect_stdout": False, "redirect_stderr": False, **options}
    return Progress(console=console, **options)
