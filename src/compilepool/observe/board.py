"""A display of some jobs on the terminal, or in a display of the user's."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence

from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.text import Text

from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.terminal import TERMINAL, let_children_print
from compilepool.text import headline, printable

if TYPE_CHECKING:
    from compilepool.observe.observer import RunningJob

_log = logging.getLogger(__name__)

_MAX_ROWS = 8
_MAX_NAME = 60
_MAX_UNTOLD = 1000  # failures, until they can be shown
_PATIENCE_S = 1.0


class Board:
    """A line with how many jobs are done, and one for each that runs; failures stay above.

    Only `show` and `close` draw: a terminal may be slow, be held, or be gone, and whoever tells of
    a failure must not wait for it. What goes wrong with drawing is logged, and ends it.

    Args:
        label: what the jobs are called.
        progress: where it is drawn; None: on the terminal of error output, if that is one.
    """

    def __init__(self, label: str, progress: Progress | None = None) -> None:
        self._label = label
        self._given = progress
        self._progress: Progress | None = None
        self._has_started_given = False
        self._is_over = False
        self._total: TaskID | None = None
        self._rows: list[TaskID] = []
        self._failed = 0
        self._untold: deque[tuple[str, str]] = deque(maxlen=_MAX_UNTOLD)
        self._lock = threading.Lock()
        self._owner_pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether it is shown."""
        return self._progress is not None

    def note_failure(self, name: str, error: BaseException) -> None:
        """A job has failed: that is shown next time. Any thread; never waits."""
        self._failed += 1
        if not self._is_over:
            self._untold.append((name, headline(error)))  # the error itself may keep much alive

    def show(self, done: int, total: int, running: Sequence[RunningJob]) -> None:
        """Show how things are; opens it, if it can be seen at all."""
        with self._lock:
            if self._is_over or self._owner_pid != os.getpid():
                return
            try:
                progress = self._progress or self._open(done, total)
                if progress is None or self._total is None:
                    self._is_over = True  # nobody would see it
                    return
                self._tell_failures(progress)
                failed = f", {self._failed} failed" if self._failed else ""
                label = self._described(f"{self._label}{failed}")
                progress.update(self._total, description=label, completed=done, total=total)
                self._show_rows(progress, running)
            except Exception as error:  # noqa: BLE001 - of rich, or of the user's display
                self._is_over = True
                _log.warning("progress is not shown any more: %s", headline(error))

    def close(self, *, is_final: bool = True) -> None:
        """Show it no more, and leave no trace of it.

        Args:
            is_final: whether it is never shown again.
        """
        if self._owner_pid != os.getpid():
            return  # the terminal is the parent's
        self._is_over |= is_final
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return  # it is held
        try:
            progress, self._progress = self._progress, None
            if progress is not None:
                self._tell_failures(progress)
                for task in (self._total, *self._rows):
                    if task is not None:
                        progress.remove_task(task)
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("progress could not be cleared away: %s", headline(error))
        finally:
            self._total, self._rows = None, []
            if progress is not None:
                self._let_go()
            self._lock.release()

    def _open(self, done: int, total: int) -> Progress | None:
        if self._given is None:
            progress = TERMINAL.open()
        else:
            progress = self._given
            if not progress.live.is_started:
                self._has_started_given = True
                progress.start()
                let_children_print()
        if progress is not None:
            self._progress = progress
            self._total = progress.add_task(self._label, completed=done, total=total)
        return progress

    def _let_go(self) -> None:
        try:
            if self._given is None:
                TERMINAL.close()
            elif self._has_started_given:
                self._has_started_given = False
                self._given.stop()
        except Exception as error:  # noqa: BLE001 - as above
            _log.warning("progress could not be cleared away: %s", headline(error))

    def _tell_failures(self, progress: Progress) -> None:
        while self._untold:
            name, what = self._untold.popleft()
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
            description = self._described(text)
            progress.update(row, description=description, visible=True, seconds=seconds)
        for row in self._rows[len(texts) :]:
            progress.update(row, visible=False)

    def _described(self, text: str) -> str:
        """As a description must be: in a display of the user's it is markup."""
        return text if self._given is None else escape(text)


def _description(job: RunningJob) -> str:
    name = printable(job.name)
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 1]}…"
    return f"  {name}" + (f"  {printable(job.phase)}" if job.phase else "")
