"""Shows the progress of some jobs on the terminal, or in a display of the user's."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence

from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.text import Text

from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.observe.terminal import TERMINAL, let_children_print
from compilepool.text import headline, printable

if TYPE_CHECKING:
    from compilepool.observe.observer import RunningJob

_log = QuietLogger(__name__)

_MAX_ROWS = 8
_MAX_NAME = 60
_MAX_UNPRINTED = 1000
"""The number of failures that are kept until the next time that something is drawn."""
_PATIENCE_S = 1.0
"""The longest time that `close` waits for a thread that is drawing."""


class Board:
    """Shows how many jobs are done, and a line for each running job. Failures stay above.

    Only `show` and `close` draw. A terminal may be slow, stopped or gone, and `note_failure` must
    not wait for it. An error of drawing is logged, and ends the display.

    Args:
        label: the word for what the jobs do, such as "compiling".
        progress: the display to draw in; None: error output, if it is a terminal.
    """

    def __init__(self, label: str, progress: Progress | None = None) -> None:
        self._label = label
        self._user_progress = progress
        self._progress: Progress | None = None
        self._has_started_user_progress = False
        self._is_over = False
        self._total: TaskID | None = None
        self._rows: list[TaskID] = []
        self._failed = 0
        self._unprinted: deque[tuple[str, str]] = deque(maxlen=_MAX_UNPRINTED)
        self._lock = threading.Lock()
        self._owner_pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether the board is visible now."""
        return self._progress is not None

    def note_failure(self, name: str, error: BaseException) -> None:
        """Keep a failure, to print it at the next `show`. Never waits, and may be called on any
        thread.
        """
        self._failed += 1
        if not self._is_over:
            # The text only: the error may keep large objects alive.
            self._unprinted.append((name, headline(error)))

    def show(self, done: int, total: int, running: Sequence[RunningJob]) -> None:
        """Draw the current state. The first call opens the board, if there is a place to draw it.

        Args:
            done: the number of jobs that have ended.
            total: the number of all jobs.
            running: the jobs that workers run.
        """
        with self._lock:
            if self._is_over or self._owner_pid != os.getpid():
                return
            try:
                progress = self._progress or self._open(done, total)
                if progress is None or self._total is None:
                    self._is_over = True  # error output is no terminal
                    return
                self._print_failures(progress)
                failed = f", {self._failed} failed" if self._failed else ""
                label = self._escaped(f"{self._label}{failed}")
                progress.update(self._total, description=label, completed=done, total=total)
                self._show_rows(progress, running)
            except Exception as error:  # noqa: BLE001 - rich or the user's display may raise anything
                self._is_over = True
                _log.warning("progress is not shown any more: %s", headline(error))

    def close(self, *, is_final: bool = True) -> None:
        """Remove everything that was drawn, except the printed failures.

        Args:
            is_final: whether the board is never shown again.
        """
        if self._owner_pid != os.getpid():
            return  # the terminal is the parent's
        self._is_over |= is_final
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return  # a thread is stuck in drawing, for example on a stopped terminal
        try:
            progress, self._progress = self._progress, None
            if progress is not None:
                self._print_failures(progress)
                for task in (self._total, *self._rows):
                    if task is not None:
                        progress.remove_task(task)
        except Exception as error:  # noqa: BLE001 - rich or the user's display may raise anything
            _log.warning("progress cannot be cleared away: %s", headline(error))
        finally:
            self._total, self._rows = None, []
            if progress is not None:
                self._let_go()
            self._lock.release()

    def _open(self, done: int, total: int) -> Progress | None:
        if self._user_progress is None:
            progress = TERMINAL.open()
        else:
            progress = self._user_progress
            if not progress.live.is_started:
                self._has_started_user_progress = True
                progress.start()
                let_children_print()
        if progress is not None:
            self._progress = progress
            self._total = progress.add_task(self._label, completed=done, total=total)
        return progress

    def _let_go(self) -> None:
        try:
            if self._user_progress is None:
                TERMINAL.close()
            elif self._has_started_user_progress:
                self._has_started_user_progress = False
                self._user_progress.stop()
        except Exception as error:  # noqa: BLE001 - rich or the user's display may raise anything
            _log.warning("progress cannot be cleared away: %s", headline(error))

    def _print_failures(self, progress: Progress) -> None:
        while self._unprinted:
            name, what = self._unprinted.popleft()
            text = Text.assemble(("failed ", "red"), (printable(name), "bold"), f"  {what}")
            progress.console.print(text, highlight=False)

    def _show_rows(self, progress: Progress, running: Sequence[RunningJob]) -> None:
        shown = running[:_MAX_ROWS]
        texts = [(_description(job), job.seconds) for job in shown]
        if len(running) > len(shown):
            texts.append((f"  and {len(running) - len(shown)} more", 0.0))
        while len(self._rows) < len(texts):
            self._rows.append(progress.add_task("", total=None))
        for row, (text, seconds) in zip(self._rows, texts, strict=False):
            description = self._escaped(text)
            progress.update(row, description=description, visible=True, seconds=seconds)
        for row in self._rows[len(texts) :]:
            progress.update(row, visible=False)

    def _escaped(self, text: str) -> str:
        """Escape text for a description: it is markup in a user's display, plain text in ours."""
        return text if self._user_progress is None else escape(text)


def _description(job: RunningJob) -> str:
    name = printable(job.name)
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 1]}…"
    return f"  {name}" + (f"  {printable(job.phase)}" if job.phase else "")
