"""What is drawn on the terminal: one display for the whole process, on its error output."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading

from rich.console import Console
from rich.file_proxy import FileProxy
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

from compilepool.light_typing import Any

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
        self._ends_with_process = False

    def open(self) -> Progress | None:
        """Draw, until `close`. None if error output is no terminal: then nothing is drawn."""
        with self._lock:
            if self._progress is None:
                console = Console(stderr=True)
                # Not what rich calls a terminal: that may be a file that is to be coloured.
                if not _is_terminal(sys.stderr) or console.is_dumb_terminal:
                    return None
                self._end_with_process()
                self._progress = Progress(
                    _OfTotal(SpinnerColumn()),
                    TextColumn("{task.description}", markup=False),
                    _OfTotal(BarColumn()),
                    _Count(),
                    _OfTotal(TimeRemainingColumn(elapsed_when_finished=True)),
                    console=console,
                    refresh_per_second=_PER_SECOND,
                    transient=True,
                    # What is printed meanwhile goes above it, unless it goes elsewhere.
                    redirect_stdout=_is_terminal(sys.stdout),
                )
                self._progress.start()
            self._users += 1
            return self._progress

    def close(self) -> None:
        """One who has opened it does not need it any more."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0 and self._progress is not None:
                progress, self._progress = self._progress, None
                progress.stop()

    def _end_with_process(self) -> None:
        if not self._ends_with_process:
            self._ends_with_process = True
            atexit.register(self._stop)
            os.register_at_fork(after_in_child=self._abandon)
            let_children_print()

    def _stop(self) -> None:
        """The program ends while it is shown."""
        with self._lock:
            progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def _abandon(self) -> None:
        """In a child that the user has forked: the terminal is the parent's, and all locks are."""
        self._lock = threading.RLock()
        self._users = 0
        self._progress = None


@functools.cache
def let_children_print() -> None:
    """In children that the user forks, have what is printed not put above a display: not theirs.

    From now on, and once for all displays.
    """
    os.register_at_fork(after_in_child=_print_directly)


def _print_directly() -> None:
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        if isinstance(file, FileProxy):
            setattr(sys, name, file.rich_proxied_file)


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError, OSError):  # there is none, or it is closed
        return False


TERMINAL = Terminal()
