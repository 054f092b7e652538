"""Shows jobs while they run: how many are done, what runs, what has failed, how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID
from rich.text import Text

from compilepool.errors import PoolClosed
from compilepool.observe.terminal import TERMINAL
from compilepool.observe.words import headline
from compilepool.wire.text import printable

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord
    from compilepool.observe.look import Look, RunningJob

_MAX_ROWS = 8
_MAX_NAME = 60


class Board:
    """A display of some jobs: a line with how many are done, and one for each that runs.

    Args:
        label: what the jobs are called.
        progress: where it is drawn; None: on the terminal of error output, if that is one.
    """

    def __init__(self, label: str, progress: Progress | None = None) -> None:
        self._label = label
        self._given = progress
        self._progress: Progress | None = None
        self._has_started_given = False
        self._is_unseen = False
        self._total: TaskID | None = None
        self._rows: list[TaskID] = []
        self._failed = 0
        self._lock = threading.RLock()

    def show(self, done: int, total: int, running: Sequence[RunningJob]) -> None:
        """Show how things are; opens it, if it can be seen at all."""
        with self._lock:
            if self._is_unseen:
                return
            progress = self._progress or self._open()
            self._is_unseen = progress is None
            if progress is None or self._total is None:
                return
            failed = f", {self._failed} failed" if self._failed else ""
            progress.update(
                self._total, description=f"{self._label}{failed}", completed=done, total=total
            )
            self._show_rows(progress, running)

    def tell_failure(self, name: str, error: BaseException) -> None:
        """Show that a job has failed, above the display, where it stays."""
        with self._lock:
            self._failed += 1
            if self._progress is not None:
                text = Text.assemble(
                    ("failed ", "red"), (printable(name), "bold"), f"  {headline(error)}"
                )
                self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        """Show it no more, and leave no trace of it."""
        with self._lock:
            progress, self._progress = self._progress, None
            if progress is None:
                return
            for task in (self._total, *self._rows):
                if task is not None:
                    progress.remove_task(task)
            self._total, self._rows = None, []
            if self._given is None:
                TERMINAL.close()
            elif self._has_started_given:
                self._has_started_given = False
                self._given.stop()

    def abandon(self) -> None:
        """As `Observer.abandon`."""
        self._lock = threading.RLock()
        self._progress = self._given = None
        TERMINAL.abandon()

    def _open(self) -> Progress | None:
        if self._given is None:
            progress = TERMINAL.open()
        else:
            progress = self._given
            if not progress.live.is_started:
                self._has_started_given = True
                progress.start()
        if progress is not None:
            self._progress = progress
            self._total = progress.add_task(self._label, total=0)
        return progress

    def _show_rows(self, progress: Progress, running: Sequence[RunningJob]) -> None:
        shown = running[:_MAX_ROWS]
        texts = [(_description(job), job.seconds) for job in shown]
        if len(running) > len(shown):
            texts.append((f"  and {len(running) - len(shown)} more", 0.0))
        while len(self._rows) < len(texts):
            self._rows.append(progress.add_task("", total=None))
        for row, (text, seconds) in zip(self._rows, texts, strict=False):
            progress.update(row, description=text, visible=True, seconds=seconds)
        for row in self._rows[len(texts) :]:
            progress.update(row, visible=False)


class PoolProgress:
    """The display of one pool. An `Observer` and a `Consumer`.

    Args:
        progress: where it is drawn; None: on the terminal of error output, if that is one.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._board = Board("compiling", progress)
        self._lock = threading.RLock()
        self._submitted = 0
        self._ended = 0

    def submitted(self, id: int, name: str) -> None:
        """As `Observer.submitted`."""
        with self._lock:
            self._submitted += 1

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """As `Observer.ended`."""
        with self._lock:
            self._ended += 1
        if error is not None and not isinstance(error, PoolClosed):
            self._board.tell_failure(name, error)

    def sample(self, look: Look) -> None:
        """As `Consumer.sample`."""
        with self._lock:
            ended, submitted = self._ended, self._submitted
        if ended < submitted:
            self._board.show(ended, submitted, look.running)
        else:
            self._board.close()

    def close(self) -> None:
        """As `Consumer.close`."""
        self._board.close()

    def abandon(self) -> None:
        """As `Observer.abandon`."""
        self._lock = threading.RLock()
        self._board.abandon()


def _description(job: RunningJob) -> str:
    name = printable(job.name)
    if len(name) > _MAX_NAME:
        name = f"{name[: _MAX_NAME - 1]}…"
    return f"  {name}" + (f"  {printable(job.phase)}" if job.phase else "")
