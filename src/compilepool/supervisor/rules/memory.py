"""Whether there is memory for another run, and how much the next run will probably take."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from compilepool.supervisor.rules.actions import RunId

NEGLIGIBLE = 32 << 20
"""Bytes. A run that takes less waits for no memory."""

_KINDS = 4096
_RUNS = 4


class Claims:
    """The memory that is kept for the runs that have a worker: what each has not taken yet.

    Args:
        expected_memory: tells how many bytes of memory a run will probably take.
    """

    def __init__(self, expected_memory: Callable[[RunId], int]) -> None:
        self._expected_memory = expected_memory
        self._claims: dict[RunId, int] = {}
        self._free = math.inf

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """There is so much memory now.

        Args:
            free: the bytes that runs may still take; negative if they have taken too much.
            used: the bytes that each run takes, as far as they are known.
        """
        self._free = free
        for id in self._claims:
            claim = max(0, self._expected_memory(id) - used.get(id, 0))
            self._claims[id] = claim
            self._free -= claim

    def admit(self, id: RunId) -> bool:
        """Whether there is memory for a run. There always is if no other run has a worker."""
        return self._fits(self._expected_memory(id))

    def claim(self, id: RunId) -> bool:
        """Keep memory for a run, which gets a worker. False if there is not enough."""
        expected = self._expected_memory(id)
        if expected and not self._fits(expected):
            return False
        self._claims[id] = expected
        self._free -= expected
        return True

    def drop(self, id: RunId) -> None:
        """Keep nothing for a run any more. What it took shows when memory is seen again."""
        self._free += self._claims.pop(id, 0)

    def _fits(self, expected: int) -> bool:
        return expected <= self._free or not self._claims or not expected


class MemoryHistory:
    """The peaks of the last few runs of each kind of job; of so many kinds, the last ones seen."""

    def __init__(self) -> None:
        self._peaks: OrderedDict[str, deque[int]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether it knows of any kind that took much."""
        return bool(self._peaks)

    def note(self, kind: str, peak_bytes: int) -> None:
        """A job of this kind has taken so much."""
        peaks = self._peaks.pop(kind, None)
        if peaks is None:
            if peak_bytes < NEGLIGIBLE:
                return
            peaks = deque(maxlen=_RUNS)
        self._peaks[kind] = peaks
        peaks.append(peak_bytes)
        if len(self._peaks) > _KINDS:
            self._peaks.popitem(last=False)

    def expected(self, kind: str) -> int:
        """The bytes that the next job will probably take; 0 if that is little, or unknown."""
        peak = max(self._peaks.get(kind, ()), default=0)
        return peak if peak >= NEGLIGIBLE else 0
