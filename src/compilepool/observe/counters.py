"""Counts jobs."""

from __future__ import annotations

import threading
import time

from compilepool.observe.histogram import Histogram
from compilepool.wire.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord


class Counters:
    """The counts of one pool. An `Observer`."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may submit, too.
        self.lock = threading.RLock()
        self.submitted_count = 0
        self.done = 0
        self.cancelled = 0
        self.failed: dict[str, int] = {}
        """By the name of the exception's type."""
        self.retried = 0
        self.queue_times = Histogram()
        self.run_times = Histogram()
        self.first_result_at: float | None = None
        self.started_at: float | None = None
        """When the first of its processes was started, by `time.monotonic()`."""

    def pool_starts(self) -> None:
        """Its first process is about to be started, unless there was one before."""
        if self.started_at is None:
            self.started_at = time.monotonic()

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        with self.lock:
            ended = self.done + self.cancelled + sum(self.failed.values())
        return self.submitted_count - ended

    def submitted(self, id: int, name: str) -> None:
        """As `Observer.submitted`."""
        self.submitted_count += 1  # under the lock of the pool's jobs

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """As `Observer.ended`."""
        with self.lock:
            if cancelled:
                self.cancelled += 1
            elif error is not None:
                kind = type(error).__name__
                self.failed[kind] = self.failed.get(kind, 0) + 1
            else:
                self.done += 1
                if self.first_result_at is None:
                    self.first_result_at = time.monotonic()
            if record.attempts:
                self.retried += record.attempts - 1
                self.queue_times.add(record.queue_seconds)
                self.run_times.add(record.wall_seconds)

    def abandon(self) -> None:
        """As `Observer.abandon`."""
        self.lock = threading.RLock()
