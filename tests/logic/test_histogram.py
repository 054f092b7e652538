"""Quantiles of durations are near the exact ones, whatever was counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compilepool.observe.counters import Histogram, Quantiles

SHORTEST_S = 1e-6
LONGEST_S = 3e7  # most of a year

durations = st.floats(SHORTEST_S, LONGEST_S)


def histogram_of(times: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in times:
        histogram.add(seconds)
    return histogram


def exact(times: list[float], share: float) -> float:
    """The least of the times that so many are not longer than."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


@given(st.lists(durations, min_size=1, max_size=200))
@example([SHORTEST_S])
@example([LONGEST_S])
@example([1.0] * 19 + [100.0])
@example([1.0] * 18 + [100.0] * 2)
@example([2**power * SHORTEST_S for power in range(44)])  # each at the edge of a bucket
def test_quantiles_are_exact_to_5_percent(times: list[float]) -> None:
    quantiles = histogram_of(times).quantiles()
    assert quantiles.p50 == pytest.approx(exact(times, 0.5), rel=0.05)
    assert quantiles.p95 == pytest.approx(exact(times, 0.95), rel=0.05)


@given(st.lists(durations, min_size=1, max_size=50))
def test_the_longest_time_is_exact_and_no_quantile_is_more(times: list[float]) -> None:
    quantiles = histogram_of(times).quantiles()
    assert quantiles.max == max(times)
    assert 0 < quantiles.p50 <= quantiles.p95 <= quantiles.max


@given(durations, st.integers(1, 100))
def test_what_always_takes_the_same_is_that(seconds: float, count: int) -> None:
    quantiles = histogram_of([seconds] * count).quantiles()
    assert quantiles[:3] == pytest.approx((seconds, seconds, seconds), rel=0.05)


@given(st.lists(durations, max_size=20), st.lists(durations, max_size=20))
def test_the_order_in_which_times_come_does_not_matter(
    some: list[float], others: list[float]
) -> None:
    assert histogram_of(some + others).quantiles() == histogram_of(others + some).quantiles()


@given(st.lists(st.floats(0, 1e-3), min_size=1, max_size=50))
def test_below_a_microsecond_quantiles_are_exact_to_that(times: list[float]) -> None:
    quantiles = histogram_of(times).quantiles()
    assert quantiles.max == max(times)
    assert quantiles.p50 == pytest.approx(exact(times, 0.5), rel=0.05, abs=1.1 * SHORTEST_S)
    assert quantiles.p95 == pytest.approx(exact(times, 0.95), rel=0.05, abs=1.1 * SHORTEST_S)


@given(st.lists(st.floats(allow_nan=False), max_size=20))
@example([math.inf])
@example([1.7e308])
@example([-math.inf, -1.0, 0.0, 5e-324])
def test_any_number_is_counted(times: list[float]) -> None:
    # The clock may have been set back; and a record is made of what a worker tells.
    histogram = histogram_of(times)
    assert histogram.count == len(times)
    quantiles = histogram.quantiles()
    assert quantiles.max == max([0.0, *times])
    assert 0 <= quantiles.p50 <= quantiles.p95 <= quantiles.max
    assert quantiles.number == len(times)
    assert 0 <= quantiles.total <= 1e9 * len(times)


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_the_sum_is_exact_to_a_microsecond_each(times: list[float]) -> None:
    quantiles = histogram_of(times).quantiles()
    assert quantiles.total == pytest.approx(sum(times), rel=1e-12, abs=1e-6 * len(times))


def test_what_never_happened_took_no_time() -> None:
    assert Histogram().quantiles() == Quantiles(0.0, 0.0, 0.0)
