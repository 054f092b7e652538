"""The jobs that wait: pure."""

from __future__ import annotations

import bisect
from collections import OrderedDict

from compilepool.supervisor.actions import Job


class JobQueue:
    """Jobs in the order in which they are to run: those of a higher priority first, and among
    those of the same, first come, first served.
    """

    def __init__(self) -> None:
        self._ranks: list[int] = []  # negated priorities of which there are jobs, ascending
        self._jobs: dict[int, OrderedDict[Job, None]] = {}  # by rank

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def put(self, job: Job, priority: int) -> None:
        """Behind all others of its priority."""
        jobs = self._jobs.get(-priority)
        if jobs is None:
            jobs = self._of_rank(-priority)
        jobs[job] = None

    def put_first(self, job: Job, priority: int) -> None:
        """Before all others of its priority: it was taken before them already."""
        jobs = self._of_rank(-priority)
        jobs[job] = None
        jobs.move_to_end(job, last=False)

    def first(self) -> Job:
        """The next one. Raises IndexError if there is none."""
        return next(iter(self._jobs[self._ranks[0]]))

    def take(self) -> Job:
        """Take out the next one. Raises IndexError if there is none."""
        rank = self._ranks[0]
        jobs = self._jobs[rank]
        job, _ = jobs.popitem(last=False)
        if not jobs:
            self._drop_if_empty(rank)
        return job

    def remove(self, job: Job, priority: int) -> None:
        """Take out this one. Raises KeyError if it does not wait."""
        del self._jobs[-priority][job]
        self._drop_if_empty(-priority)

    def take_all(self) -> list[Job]:
        """Take out all of them, in order."""
        jobs = [job for rank in self._ranks for job in self._jobs[rank]]
        self._ranks, self._jobs = [], {}
        return jobs

    def _of_rank(self, rank: int) -> OrderedDict[Job, None]:
        if rank not in self._jobs:
            self._jobs[rank] = OrderedDict()
            bisect.insort(self._ranks, rank)
        return self._jobs[rank]

    def _drop_if_empty(self, rank: int) -> None:
        if not self._jobs[rank]:
            del self._jobs[rank]
            self._ranks.remove(rank)
