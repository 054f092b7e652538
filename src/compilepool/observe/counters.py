"""Counts jobs, and keeps quantiles of their durations in bounded memory."""

from __future__ import annotations

import math
import threading
import time

from compilepool.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from compilepool.observe.record import JobRecord

_SHORTEST_S = 1e-6
_PER_DOUBLING = 16
_LONGEST_S = 1e9  # a longer time is a mistake
_BUCKETS = 45 * _PER_DOUBLING  # 45 doublings of a microsecond are more than a year


class Quantiles(NamedTuple):
    """Quantiles of durations, and what they add up to, in seconds; all 0 without a duration.

    Attributes:
        p50: the median, exact to 5 %.
        p95: the 95th percentile, exact to 5 %.
        max: the longest duration, exact.
        number: how many durations there were.
        total: all durations together, each exact to a microsecond.
    """

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0
    number: int = 0
    total: float = 0.0


class Histogram:
    """Counts durations in buckets, each about 4 % wide."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._max = 0.0
        self._sum_us = 0  # whole, so that the order does not matter
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count a duration. The first bucket takes everything below a microsecond."""
        index = 0
        if seconds > _SHORTEST_S:
            index = int(min(math.log2(seconds / _SHORTEST_S) * _PER_DOUBLING, _BUCKETS - 1))
        self._counts[index] += 1
        self.count += 1
        self._sum_us += round(min(max(seconds, 0.0), _LONGEST_S) * 1e6)
        self._max = max(self._max, seconds)

    def quantiles(self) -> Quantiles:
        """Compute the quantiles of all durations so far."""
        p50, p95 = self._quantile(0.5), self._quantile(0.95)
        return Quantiles(p50, p95, self._max, self.count, self._sum_us / 1e6)

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
    """The counts of one pool. An `Observer`.

    Attributes:
        lock: guards all counts.
        submitted_count: the number of submitted jobs.
        done: the number of jobs that returned a result.
        cancelled: the number of jobs that were cancelled.
        failed: the number of failed jobs by the name of the exception's type.
        retried: how often a job began again.
        joined: the number of jobs that got the result of another job's run.
        reused: the number of jobs that got the result of a run that had ended before.
        peak_memory: the most memory that a job was seen to take, in bytes.
        queue_times: the times from submission to start.
        run_times: the times from start to end.
        first_result_at: the time of the first result, by `time.monotonic()`; None before it.
        started_at: the start of the pool's first process, by `time.monotonic()`; None before it.
    """

    def __init__(self) -> None:
        # Reentrant, because a signal handler may submit a job while this thread holds the lock.
        self.lock = threading.RLock()
        self.submitted_count = 0
        self.done = 0
        self.cancelled = 0
        self.failed: dict[str, int] = {}
        self.retried = 0
        self.joined = 0
        self.reused = 0
        self.peak_memory = 0
        self.queue_times = Histogram()
        self.run_times = Histogram()
        self.first_result_at: float | None = None
        self.started_at: float | None = None

    @property
    def first_result_s(self) -> float | None:
        """The seconds from the start of the pool to the first result; None before that."""
        if self.first_result_at is None or self.started_at is None:
            return None
        return self.first_result_at - self.started_at

    def pool_starts(self) -> None:
        """Note the time: a process of the pool is about to start. Only the first call counts."""
        if self.started_at is None:
            self.started_at = time.monotonic()

    @property
    def unfinished(self) -> int:
        """The number of jobs that have not ended."""
        with self.lock:
            ended = self.done + self.cancelled + sum(self.failed.values())
        return self.submitted_count - ended

    def submitted(self, id: int, name: str) -> None:
        """Implements `Observer.submitted`."""
        self.submitted_count += 1  # the caller holds the lock of the pool's jobs

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """Implements `Observer.ended`."""
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
            self.joined += record.shared == "joined"
            self.reused += record.shared == "reused"
            if record.attempts:
                self.retried += record.attempts - 1
                self.peak_memory = max(self.peak_memory, record.peak_memory)
                self.queue_times.add(record.queue_seconds)
                self.run_times.add(record.wall_seconds)

    def abandon(self) -> None:
        """Implements `Observer.abandon`: another thread may have held the lock during the fork."""
        self.lock = threading.RLock()
