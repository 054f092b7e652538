"""The counts of torch's `tracked_process_pool`, and what is reported of them."""

from __future__ import annotations

import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool import SerializationError
from compilepool.integrations.torch.compile_worker import tracked_process_pool
from compilepool.integrations.torch.compile_worker.tracked_process_pool import (
    TrackedProcessPoolExecutor,
    _queue_stats_report,
    _QueueStats,
)


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> _QueueStats:
    """The counts, from 0 on: they are those of the whole process."""
    fresh = _QueueStats()
    monkeypatch.setattr(tracked_process_pool, "_queue_stats", fresh)
    return fresh


def report_of(stats: _QueueStats, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is reported of the counts."""
    stats.pool_count = 1
    caplog.set_level(logging.INFO, tracked_process_pool.__name__)
    _queue_stats_report()
    return caplog.messages


def peak_by_counting(waits: list[tuple[int, int]]) -> int:
    """The most that wait at once: it is reached when one of them begins to."""
    return max(
        (sum(start <= moment < end for start, end in waits) for moment, _ in waits), default=0
    )


def test_a_job_that_was_not_accepted_is_not_counted(stats: _QueueStats) -> None:
    with TrackedProcessPoolExecutor(1) as pool, pytest.raises(SerializationError):
        pool.submit(threading.Lock().acquire)
    assert (stats.pool_count, stats.enqueue_count, len(stats.pending)) == (1, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10))))
def test_the_depth_is_the_most_that_waited_at_once(begun: list[tuple[int, int]]) -> None:
    waits = [(start, start + seconds) for start, seconds in begun]
    stats = _QueueStats(waits=[(float(start), float(end)) for start, end in waits])
    assert stats.max_queue_depth == peak_by_counting(waits)


def test_a_job_that_began_before_it_was_queued_has_not_waited() -> None:
    """The clock was set back meanwhile."""
    stats = _QueueStats(waits=[(0.0, 10.0), (2.0, 4.0), (5.0, 1.0)])
    assert stats.timing == [10.0, 2.0, 0.0]
    assert stats.max_queue_depth == 2


def test_the_report_says_how_long_jobs_have_waited(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.enqueue_count = 22
    stats.waits = [(100.0, 100.0 + seconds) for seconds in reversed(range(1, 21))]
    assert report_of(stats, caplog) == [
        "AsyncCompile Metrics:",
        "  Pools 1",
        "  Items 22 enqueued / 20 dequeued",
        "  Max Queue Depth: 20",
        "  Longest queue time: 20.00s",
        "  P50: 11.00s",
        "  P95: 20.00s",
    ]


def test_the_95th_percentile_is_not_the_longest_of_many(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.waits = [(0.0, float(seconds)) for seconds in range(100)]
    assert report_of(stats, caplog)[-3:] == [
        "  Longest queue time: 99.00s",
        "  P50: 50.00s",
        "  P95: 95.00s",
    ]


def test_the_report_has_no_95th_percentile_of_less_than_20_jobs(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    stats.waits = [(0.0, float(seconds)) for seconds in range(1, 20)]
    assert report_of(stats, caplog)[-2:] == ["  Longest queue time: 19.00s", "  P50: 10.00s"]


def test_the_report_has_no_times_where_no_job_has_begun(
    stats: _QueueStats, caplog: pytest.LogCaptureFixture
) -> None:
    assert report_of(stats, caplog) == [
        "AsyncCompile Metrics:",
        "  Pools 1",
        "  Items 0 enqueued / 0 dequeued",
        "  Max Queue Depth: 0",
    ]
