"""What the scheduler knows about the runs and the workers of a pool."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import Action, Reason, RunId, WorkerId
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, Dispatch
from compilepool.supervisor.rules.queue import ScheduledRuns
from compilepool.supervisor.rules.staffing import Staffing, StaffingPolicy
from compilepool.supervisor.rules.states import CONDEMNED, DISMISSED
from compilepool.supervisor.rules.workers import Workers
from compilepool.wire.messages import Readiness


class SchedulerState(Generic[Reason]):
    """The queue and the workers of one pool. `Scheduler` changes them; the questions do not.

    Args:
        max_workers: the number of workers that may have runs at once.
        expected_memory: returns the bytes of memory that a run will probably take.
        staffing: the user's settings for the number of workers.

    Attributes:
        max_queued: the largest number of runs that have waited at once.
    """

    def __init__(
        self,
        max_workers: int,
        expected_memory: Callable[[RunId], int] = lambda _run: 0,
        staffing: StaffingPolicy = StaffingPolicy(),  # noqa: B008 - it is immutable
    ) -> None:
        self._due: list[Action[Reason]] = []
        """What events have decided and `next_actions` has not returned yet."""
        self._runs: ScheduledRuns[Reason] = ScheduledRuns(expected_memory, self._due)
        self._workers = Workers(max_workers)
        self._staffing = Staffing(self._workers, max_workers, staffing)
        self._dispatch = Dispatch(self._runs, self._workers, self._staffing)
        self._broken: Reason | None = None
        """Why no worker can be started; None if workers can."""
        self._unanswered: set[WorkerId] = set()
        """The workers from which runs are being taken back."""
        self.max_queued = 0

    @property
    def is_broken(self) -> bool:
        """Whether no worker can be started."""
        return self._broken is not None

    @property
    def unfinished(self) -> int:
        """The number of runs that have not ended."""
        return len(self._runs)

    @property
    def queued(self) -> int:
        """The number of unfinished runs that have not begun."""
        return max(0, len(self._runs) - self._workers.running)

    @property
    def readiness(self) -> Readiness:
        """Whether all, some or none of the wanted workers are ready. At least one is wanted."""
        return self._staffing.readiness

    @property
    def runs_are_short(self) -> bool:
        """Whether no run waits, and the last run was as short as its transport."""
        return self._dispatch.ahead == MAX_AHEAD and not self._runs.some_wait

    @property
    def recycled(self) -> int:
        """The number of workers that were replaced after their last run or for their memory."""
        return self._staffing.recycled

    @property
    def is_asleep(self) -> bool:
        """Whether the pool is asleep and its last worker is gone."""
        return self._staffing.is_asleep and not self._workers

    @property
    def is_short_of_memory(self) -> bool:
        """Whether a run waits for nothing but memory, see `memory_seen`."""
        return self._workers.can_take_run and self._runs.first_lacks_memory

    def activity_of(self, worker: WorkerId) -> str:
        """What the worker is doing, in the words of `PoolStats.workers`."""
        return self._workers[worker].activity

    def was_condemned(self, worker: WorkerId) -> bool:
        """Whether the worker is killed because its run must end."""
        return self._workers[worker].state is CONDEMNED

    def was_dismissed(self, worker: WorkerId) -> bool:
        """Whether the worker was told to exit."""
        return self._workers[worker].state is DISMISSED

    def runs_of(self, worker: WorkerId) -> list[RunId]:
        """The runs that the worker has, in the order sent."""
        return list(self._workers[worker].runs)

    def waits(self, run: RunId) -> bool:
        """Whether the run has neither a worker nor ended."""
        record = self._runs.get(run)
        return record is not None and record.worker is None

    def worker_of(self, run: RunId) -> WorkerId | None:
        """The worker that has the run; None if it waits or has ended."""
        record = self._runs.get(run)
        return None if record is None else record.worker

    def first_runs(self) -> dict[WorkerId, RunId]:
        """The first run of each worker that has one."""
        return self._workers.first_runs()
