"""Decides whether there is memory for another run, and predicts how much a run will take."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from compilepool.supervisor.rules.actions import RunId

NEGLIGIBLE = 32 << 20
"""Bytes. A run that takes less does not wait for memory."""

_KINDS = 4096  # the number of kinds of runs that are remembered
_RUNS = 4  # the number of runs of each kind that are remembered


class Claims:
    """The memory that is reserved for runs that have a worker and have not taken it yet.

    Args:
        expected_memory: returns the bytes of memory that a run will probably take.
    """

    def __init__(self, expected_memory: Callable[[RunId], int]) -> None:
        self._expected_memory = expected_memory
        self._claims: dict[RunId, int] = {}
        self._free = math.inf

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """Note a measurement of memory.

        Args:
            free: the bytes that runs may still take; negative if they have taken too much.
            used: the bytes that each run takes, as far as known.
        """
        self._free = free
        for id in self._claims:
            claim = max(0, self._expected_memory(id) - used.get(id, 0))
            self._claims[id] = claim
            self._free -= claim

    def admit(self, id: RunId) -> bool:
        """Whether there is memory for a run. If no other run has a worker, there always is."""
        return self._fits(self._expected_memory(id))

    def claim(self, id: RunId) -> bool:
        """Reserve memory for a run that gets a worker. Returns False if there is not enough."""
        expected = self._expected_memory(id)
        if expected and not self._fits(expected):
            return False
        self._claims[id] = expected
        self._free -= expected
        return True

    def drop(self, id: RunId) -> None:
        """End a run's reservation. What it has taken shows in the next measurement."""
        self._free += self._claims.pop(id, 0)

    def _fits(self, expected: int) -> bool:
        return expected <= self._free or not self._claims or not expected


class MemoryHistory:
    """The peaks of memory of the last few runs of each kind, for the kinds that were seen last."""

    def __init__(self) -> None:
        self._peaks: OrderedDict[str, deque[int]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether any run has taken `NEGLIGIBLE` bytes or more."""
        return bool(self._peaks)

    def note(self, kind: str, peak_bytes: int) -> None:
        """Note how many bytes a run of this kind has taken at its peak."""
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
        """The bytes that a run of this kind will probably take; 0 if negligible or unknown."""
        peak = max(self._peaks.get(kind, ()), default=0)
        return peak if peak >= NEGLIGIBLE else 0
