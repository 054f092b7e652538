"""What is drawn on the terminal: one display for the whole process, on its error output."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_PER_SECOND = 8


class _OfTotal(ProgressColumn):
    """A column that only tasks have of which one knows how much there is to do."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> Any:
        return Text() if task.total is None else self._column(task)


class _Count(ProgressColumn):
    """How much is done of how much; of a job that runs, for how long it does."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.fields.get('seconds', 0.0):.1f} s", "dim", justify="right")
        return Text(f"{task.completed:.0f}/{task.total:.0f}", justify="right")


class Terminal:
    """The display of this process. It is there while somebody uses it, and then leaves no trace."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._progress: Progress | None = None

    def open(self) -> Progress | None:
        """Draw, until `close`. None if error output is no terminal: then nothing is drawn."""
        with self._lock:
            if self._progress is None:
                console = Console(stderr=True)
                if not console.is_terminal or console.is_dumb_terminal:
                    return None
                self._progress = Progress(
                    _OfTotal(SpinnerColumn()),
                    TextColumn("{task.description}", markup=False),
                    _OfTotal(BarColumn()),
                    _Count(),
                    _OfTotal(TimeRemainingColumn(elapsed_when_finished=True)),
                    console=console,
                    refresh_per_second=_PER_SECOND,
                    transient=True,
                )
                self._progress.start()
            self._users += 1
            return self._progress

    def close(self) -> None:
        """One who has opened it does not need it any more."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._progress is not None:
                progress, self._progress = self._progress, None
                progress.stop()

    def abandon(self) -> None:
        """In a child that the user has forked: the terminal is the parent's."""
        self._lock = threading.RLock()
        self._users = 0
        self._progress = None


TERMINAL = Terminal()
