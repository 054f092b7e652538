"""Quantiles of many durations, in little memory."""

from __future__ import annotations

import math
from typing import NamedTuple

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
