"""The progress display on error output. There is one for the whole process."""

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

_REFRESHES_PER_SECOND = 8


class _OfTotal(ProgressColumn):
    """A column that is empty for tasks without a total, which stand for running jobs."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> Any:
        return Text() if task.total is None else self._column(task)


class _Count(ProgressColumn):
    """A column with the number of jobs done of all jobs; for a running job, with its duration."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.fields.get('seconds', 0.0):.1f} s", "dim", justify="right")
        return Text(f"{task.completed:.0f}/{task.total:.0f}", justify="right")


class Terminal:
    """The progress display of this process. It exists while it is used, and leaves no trace."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._users = 0
        self._progress: Progress | None = None
        self._ends_with_process = False

    def open(self) -> Progress | None:
        """Open the display, unless it is open. Each call needs a call of `close`.

        Returns:
            The display; None if error output is no terminal, when nothing is drawn.
        """
        with self._lock:
            if self._progress is None:
                console = Console(stderr=True)
                # Not `console.is_terminal`, which is also true for a file with FORCE_COLOR.
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
                    refresh_per_second=_REFRESHES_PER_SECOND,
                    transient=True,
                    # Prints to the same terminal go above the display.
                    redirect_stdout=_is_terminal(sys.stdout),
                )
                self._progress.start()
            self._users += 1
            return self._progress

    def close(self) -> None:
        """End one use of the display. The last user removes it."""
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
        """Remove the display at the end of the program."""
        with self._lock:
            progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def _abandon(self) -> None:
        """Forget the display in a forked child: terminal and lock are the parent's."""
        self._lock = threading.RLock()
        self._users = 0
        self._progress = None


@functools.cache
def let_children_print() -> None:
    """Make forked children print directly, instead of above a display that is not theirs.

    The effect is permanent, and covers all displays.
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
    except (AttributeError, ValueError, OSError):  # the stream is None or closed
        return False


TERMINAL = Terminal()
