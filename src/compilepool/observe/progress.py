"""Shows a pool's jobs while they run."""

from __future__ import annotations

import threading
import time

from compilepool.errors import PoolClosed
from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.board import Board

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.client.record import JobRecord
    from compilepool.observe.observer import Sample

_SHOWN_AFTER_S = 0.15


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
        self._busy_since = 0.0

    def submitted(self, id: int, name: str) -> None:
        """As `Observer.submitted`."""
        with self._lock:
            if self._submitted == self._ended:
                self._busy_since = time.monotonic()
            self._submitted += 1

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """As `Observer.ended`."""
        with self._lock:
            self._ended += 1
        if error is not None and not isinstance(error, PoolClosed):
            self._board.note_failure(name, error)

    def sample(self, look: Sample) -> None:
        """As `Consumer.sample`."""
        with self._lock:
            ended, submitted = self._ended, self._submitted
            busy_s = time.monotonic() - self._busy_since
        if ended == submitted:
            self._board.close(is_final=False)
        elif self._board.is_open or busy_s >= _SHOWN_AFTER_S:  # short jobs are not worth it
            self._board.show(ended, submitted, look.running)

    def close(self) -> None:
        """As `Consumer.close`."""
        self._board.close()

    def abandon(self) -> None:
        """As `Observer.abandon`: the board knows by itself."""
        self._lock = threading.RLock()
