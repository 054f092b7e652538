"""The jobs that have not ended: those that wait, and those that workers have. Pure."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    Cause,
    FailJob,
    Job,
    ReportCancelled,
    Worker,
)
from compilepool.supervisor.rules.memory import Admission
from compilepool.supervisor.rules.states import JobState, WorkerState


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


class JobTable(Generic[Cause]):
    """The unfinished jobs of one pool.

    Args:
        expected_memory: how many bytes of memory a job will probably take.
    """

    def __init__(self, expected_memory: Callable[[Job], int]) -> None:
        self._jobs: dict[Job, JobState] = {}
        self._queue = JobQueue()
        self._admission = Admission(expected_memory)

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, job: Job) -> JobState:
        return self._jobs[job]

    def get(self, job: Job) -> JobState | None:
        """The job's state; None if it has ended."""
        return self._jobs.get(job)

    @property
    def some_wait(self) -> bool:
        """Whether no worker has some of them."""
        return bool(self._queue)

    @property
    def is_short_of_memory(self) -> bool:
        """Whether the one that is next waits for memory, as far as that was asked."""
        return bool(self._queue) and self._admission.is_short

    def add(self, job: Job, state: JobState) -> None:
        """A new one, which waits."""
        self._jobs[job] = state
        self._queue.put(job, state.priority)

    def memory_seen(self, free: int, used: Mapping[Job, int]) -> None:
        """As `Admission.seen`."""
        self._admission.seen(free, used)

    def ask_anew(self) -> None:
        """Nobody has asked yet whether there is memory for the next one."""
        self._admission.is_short = False

    def next(self) -> JobState | None:
        """The one that is next; None if none waits, or there is no memory for it.

        If not for it, those behind it wait as well, which may take less: else it might never run.
        """
        if not self._queue:
            return None
        job = self._queue.first()
        return self._jobs[job] if self._admission.admits(job) else None

    def take(self, worker: Worker) -> Job:
        """Give the one that is next to a worker."""
        job = self._queue.take()
        self._jobs[job].worker = worker
        self._admission.sent(job)
        return job

    def take_back(self, state: WorkerState, jobs: Sequence[Job]) -> list[Action[Cause]]:
        """Take jobs from a worker that it has not begun. They are next, unless cancelled."""
        actions: list[Action[Cause]] = []
        for job in reversed(jobs):
            state.jobs.remove(job)
            if self._jobs[job].is_cancelled:
                actions.append(self._end_cancelled(job))
            else:
                self._put_first(job)
        return actions

    def run_again(self, job: Job) -> None:
        """Its worker is lost, and it is not to blame: it is next."""
        self._jobs[job].attempts += 1
        self._put_first(job)

    def finish(self, job: Job) -> None:
        """It has ended by itself."""
        self._admission.returned(job)
        del self._jobs[job]

    def fail(self, job: Job, cause: Cause) -> Action[Cause]:
        """It has no end of its own."""
        if self._jobs[job].is_cancelled:
            return self._end_cancelled(job)
        self.finish(job)
        return FailJob(job, cause)

    def fail_waiting(self, cause: Cause) -> list[Action[Cause]]:
        """So it goes with all that no worker has."""
        return [self.fail(job, cause) for job in self._queue.take_all()]

    def cancel(self, job: Job) -> Action[Cause]:
        """Nobody wants it, and no worker has it."""
        self._queue.remove(job, self._jobs[job].priority)
        return self._end_cancelled(job)

    def cancel_waiting(self) -> list[Action[Cause]]:
        """So it goes with all that no worker has."""
        return [self._end_cancelled(job) for job in self._queue.take_all()]

    def _put_first(self, job: Job) -> None:
        self._admission.returned(job)
        self._jobs[job].worker = None
        self._queue.put_first(job, self._jobs[job].priority)

    def _end_cancelled(self, job: Job) -> ReportCancelled:
        self.finish(job)
        return ReportCancelled(job)
