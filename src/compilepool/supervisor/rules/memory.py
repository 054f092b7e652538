"""Whether there is memory for another job: pure."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping

from compilepool.supervisor.rules.actions import Job

_KINDS = 4096
_RUNS = 4
NEGLIGIBLE = 32 << 20
"""Bytes. Who takes less waits for no memory."""


class MemoryHistory:
    """The peaks of the last few runs of each kind of job; of so many kinds, the last ones seen."""

    def __init__(self) -> None:
        self._peaks: OrderedDict[str, deque[int]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether it knows of any that took much."""
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
        """How much the next one will probably take, in bytes; 0 if that is little, or unknown."""
        peak = max(self._peaks.get(kind, ()), default=0)
        return peak if peak >= NEGLIGIBLE else 0


class Admission:
    """Knows which jobs have a worker, and the memory that is kept for them: their claims.

    Args:
        expected_memory: how many bytes of memory a job will probably take.
    """

    def __init__(self, expected_memory: Callable[[Job], int]) -> None:
        self._expected_memory = expected_memory
        self._claims: dict[Job, int] = {}
        self._free = math.inf
        self._asked = (0, 0)  # about which job last, and what was expected
        self.is_short = False
        """Whether the job that was asked about last would take more memory than there is."""

    def seen(self, free: int, used: Mapping[Job, int]) -> None:
        """How much memory there is now.

        Args:
            free: bytes that jobs may still take; negative if they have taken too much.
            used: the bytes that jobs take, as far as they are known.
        """
        self._free = free
        for job in self._claims:
            claim = max(0, self._expected_memory(job) - used.get(job, 0))
            self._claims[job] = claim
            self._free -= claim

    def admits(self, job: Job) -> bool:
        """Whether the job, which is next, may have a worker. One job always may."""
        expected = self._expected_memory(job)
        self._asked = (job, expected)
        self.is_short = bool(self._claims) and expected > 0 and expected > self._free
        return not self.is_short

    def sent(self, job: Job) -> None:
        """A worker has it."""
        asked, expected = self._asked
        if asked != job:
            expected = self._expected_memory(job)
        self._claims[job] = expected
        self._free -= expected

    def returned(self, job: Job) -> None:
        """No worker has it any more, if one had. What it took shows when memory is seen again."""
        self._free += self._claims.pop(job, 0)
