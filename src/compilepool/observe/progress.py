"""`PoolProgress`: shows the jobs of a pool while they run."""

from __future__ import annotations

import threading
import time

from compilepool.errors import PoolClosed
from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.board import Board

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.observe.observer import Sample
    from compilepool.observe.record import JobRecord

_SHOWN_AFTER_S = 0.15
"""The time that a pool must be busy before its progress appears, in seconds."""


class PoolProgress:
    """The progress display of one pool. An `Observer` and a `Consumer`.

    Args:
        progress: the display to draw in; None: error output, if it is a terminal.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._board = Board("compiling", progress)
        self._lock = threading.RLock()
        self._submitted = 0
        self._ended = 0
        self._busy_since = 0.0

    def submitted(self, id: int, name: str) -> None:
        """Implements `Observer.submitted`."""
        with self._lock:
            if self._submitted == self._ended:
                self._busy_since = time.monotonic()
            self._submitted += 1

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """Implements `Observer.ended`."""
        with self._lock:
            self._ended += 1
        if error is not None and not isinstance(error, PoolClosed):
            self._board.note_failure(name, error)

    def sample(self, sample: Sample) -> None:
        """Implements `Consumer.sample`."""
        with self._lock:
            ended, submitted = self._ended, self._submitted
            busy_s = time.monotonic() - self._busy_since
        if ended == submitted:
            self._board.close(is_final=False)
        elif self._board.is_open or busy_s >= _SHOWN_AFTER_S:
            self._board.show(ended, submitted, sample.running)

    def close(self) -> None:
        """Implements `Consumer.close`."""
        self._board.close()

    def abandon(self) -> None:
        """Implements `Observer.abandon`: another thread may have held the lock during the fork.

        The board knows by itself which process it belongs to.
        """
        self._lock = threading.RLock()
