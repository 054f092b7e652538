"""Counts jobs, and keeps quantiles of their durations in little memory."""

from __future__ import annotations

import math
import threading
import time

from compilepool.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord

_SHORTEST_S = 1e-6
_PER_DOUBLING = 16
_BUCKETS = 45 * _PER_DOUBLING  # up to a year


class Quantiles(NamedTuple):
    """How long something took, in seconds; all 0 if it never happened.

    Attributes:
        p50: half of the times it took no longer than this, which is exact to 5 %.
        p95: 95 % of the times it took no longer than this, likewise.
        max: the longest time.
    """

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0


class Histogram:
    """Counts durations in buckets, each some 4 % wide."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._max = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one. What is less than a microsecond, or negative, counts as that."""
        index = 0
        if seconds > _SHORTEST_S:
            index = int(min(math.log2(seconds / _SHORTEST_S) * _PER_DOUBLING, _BUCKETS - 1))
        self._counts[index] += 1
        self.count += 1
        self._max = max(self._max, seconds)

    def quantiles(self) -> Quantiles:
        """Of all that were counted."""
        return Quantiles(self._quantile(0.5), self._quantile(0.95), self._max)

    def _quantile(self, share: float) -> float:
        rank = math.ceil(share * self.count)
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= rank:
                middle: float = _SHORTEST_S * 2 ** ((index + 0.5) / _PER_DOUBLING)
                return min(middle, self._max)
        return 0.0


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
