"""How many workers there are to be, and which of them are to go: pure."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.supervisor.rules.actions import (
    Action,
    EndForkServer,
    EndWorker,
    ReplaceForkServer,
    StartWorker,
    Worker,
)
from compilepool.supervisor.rules.states import WorkerState
from compilepool.supervisor.rules.workers import Roster
from compilepool.wire.messages import Readiness

MAX_IDLE_DEATHS = 5
"""So many workers for each that there may be, that die in a row, soon, and before they have ended a
job, are not replaced until there is a job."""

_LONG_IDLE_S = 10.0


class StaffingPolicy(NamedTuple):
    """What the user wants.

    Attributes:
        min_workers: how many are there even without a job, once there was one.
        idle_timeout_s: after how many seconds without a job a worker goes, and when all have gone,
            the fork server; None: never.
        max_jobs_per_worker: after how many jobs a worker is replaced; None: never.
    """

    min_workers: int = 0
    idle_timeout_s: float | None = None
    max_jobs_per_worker: int | None = None


class Staffing:
    """Decides that for one pool.

    The pool is *awake* or *asleep*: asleep, it has no workers, or will have none as soon as their
    jobs have ended. Every job, and every call for workers, wakes it.

    Args:
        roster: the workers. What is decided here is noted there at once.
        max_workers: how many may have jobs at once.
        policy: what the user wants.
    """

    def __init__(self, roster: Roster, max_workers: int, policy: StaffingPolicy) -> None:
        self._roster = roster
        self._max_workers = max_workers
        self._policy = policy
        self._warm = 0  # how many were asked for, whatever the policy says
        self._has_given_up = False
        self._idle_deaths = 0
        self._quiet_since: float | None = None
        self.is_asleep = False
        self._keeps_fork_server = False
        self._has_ended_fork_server = False
        self.recycled = 0
        """How many workers were replaced after so many jobs, or for their memory."""

    @property
    def limits_jobs(self) -> bool:
        """Whether a worker may have so many jobs only."""
        return self._policy.max_jobs_per_worker is not None

    @property
    def floor(self) -> int:
        """How many workers there are to be, whether or not there are jobs."""
        if self.is_asleep or self._has_given_up:
            return 0
        return max(self._warm, self._policy.min_workers)

    @property
    def readiness(self) -> Readiness:
        """Whether the workers have started that were asked for, of which there is one at least."""
        if self.is_asleep or not self._roster.ready:
            return Readiness.NONE
        wanted = max(1, self._warm, self._policy.min_workers)
        are_all = self._roster.ready >= wanted or (
            self._roster.is_as_full_as_can_be and self._roster.ready == self._roster.staying
        )
        return Readiness.ALL if are_all else Readiness.SOME

    def wake(self) -> None:
        """There is a job."""
        self.is_asleep = False
        self._has_given_up = False
        self._has_ended_fork_server = False

    def warm_up(self, now: float) -> None:
        """All workers are wanted."""
        self.wake()
        self._warm = self._max_workers
        self._quiet_since = now  # else the timer might have run out already

    def sleep(self, *, keeps_fork_server: bool) -> None:
        """The workers are to go when their jobs have ended, and then the fork server."""
        self.is_asleep = True
        self._warm = 0
        self._keeps_fork_server = keeps_fork_server

    def give_up(self) -> None:
        """Workers cannot be had: wait for the next job."""
        self._has_given_up = True

    def job_ended(self, worker: WorkerState) -> None:
        """A job has, in this worker."""
        self._idle_deaths = 0
        self.recycled += worker.served == self._policy.max_jobs_per_worker

    def jobs_taken_back(self, worker: Worker) -> None:
        """From a worker that may have had as many as it may have."""
        if self._roster[worker].has_last_job:
            self._roster.may_go_on(worker)

    def worker_ready(self, now: float) -> None:
        """One has started: it shall have its time, too."""
        if self._quiet_since is not None:
            self._quiet_since = now

    def has_died_idle(self, served: int, idle_s: float) -> bool:
        """A worker has died that had ended so many jobs, and had been idle for so long.

        Returns:
            Whether workers are given up now.
        """
        if idle_s > _LONG_IDLE_S:
            self._idle_deaths = 0
        elif not served:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_IDLE_DEATHS * self._max_workers:
                self._idle_deaths = 0
                self.give_up()
                return True
        return False

    def has_got_job(self, worker: Worker) -> list[Action[Any]]:
        """If it was its last one, its successor starts: it will be there in time."""
        state = self._roster[worker]
        most = self._policy.max_jobs_per_worker
        if most is None or state.served + len(state.jobs) < most:
            return []
        self._roster.has_last_job(worker)
        if not self._starts_successors or not self._roster.has_room:
            return []
        return [StartWorker(self._roster.add())]

    def has_outgrown(self, worker: Worker) -> list[Action[Any]]:
        """It takes too much memory: it goes when its successor has started."""
        successor = self._roster.replace(worker) if self._starts_successors else None
        if successor is None:
            return []
        self.recycled += 1
        return [StartWorker(successor)]

    def replace_all(self) -> list[Action[Any]]:
        """No job is to begin in a worker that there is now. (Unread jobs are to be taken back.)"""
        for worker in self._roster:
            self._roster.expire(worker)
        self._has_given_up = False
        return [] if self._has_ended_fork_server else [ReplaceForkServer()]

    def next_tick(self) -> float | None:
        """When to call `tick`, on the clock of `now`; None: not before the next event."""
        if self._policy.idle_timeout_s is None or self.is_asleep:
            return None
        if self._roster.staying > self._roster.ready:
            return None  # whoever wants those that start shall see all of them ready
        due = self._quiet_due
        if self._roster.idle and self._roster.staying > self._policy.min_workers:
            longest = self._roster[next(iter(self._roster.idle))]
            idle_due = longest.since + self._policy.idle_timeout_s
            due = idle_due if due is None else min(due, idle_due)
        return due

    def tick(self, now: float) -> list[Action[Any]]:
        """The time of `next_tick` has come: who has been idle for too long goes."""
        actions: list[Action[Any]] = []
        while (due := self.next_tick()) is not None and due <= now:
            self._warm = 0
            if due == self._quiet_due:
                self.sleep(keeps_fork_server=False)
            else:
                actions.append(self._end(next(iter(self._roster.idle))))
        return actions

    def adjust(self, now: float, *, unfinished: int, some_wait: bool) -> list[Action[Any]]:
        """What there is to do after an event.

        Args:
            now: the time.
            unfinished: how many jobs have not ended.
            some_wait: whether some of them have no worker.
        """
        if unfinished:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        actions: list[Action[Any]] = [self._end(worker) for worker in list(self._roster.spent)]
        if not self.is_asleep:
            while self._roster.staying < self.floor and self._roster.has_room:
                actions.append(StartWorker(self._roster.add()))
        elif not some_wait:
            for worker in list(self._roster):
                state = self._roster[worker]
                if not state.is_retired and not state.jobs:
                    actions.append(self._end(worker))
            if not unfinished and not self._roster and not self._keeps_fork_server:
                actions += self._end_fork_server()
        return actions

    @property
    def _quiet_due(self) -> float | None:
        """When the pool falls asleep, if no job comes."""
        timeout_s = self._policy.idle_timeout_s
        if self._quiet_since is None or timeout_s is None or self._policy.min_workers:
            return None
        return self._quiet_since + timeout_s

    @property
    def _starts_successors(self) -> bool:
        return not (self.is_asleep or self._has_given_up)

    def _end(self, worker: Worker) -> EndWorker:
        self._roster.dismiss(worker)
        return EndWorker(worker)

    def _end_fork_server(self) -> list[Action[Any]]:
        if self._has_ended_fork_server:
            return []
        self._has_ended_fork_server = True
        return [EndForkServer()]
