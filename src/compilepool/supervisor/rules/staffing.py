"""How many workers there are to be, and which of them are to go."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.supervisor.rules.actions import (
    Action,
    EndForkServer,
    EndWorker,
    StartWorker,
    WorkerId,
)
from compilepool.supervisor.rules.workers import Worker, Workers
from compilepool.wire.messages import Readiness

MAX_IDLE_DEATHS = 5
"""The number of workers, for each place of the pool, that may die in a row, soon, and before they
have ended a run. Then they are not replaced until there is a run."""

_LONG_IDLE_S = 10.0


class StaffingPolicy(NamedTuple):
    """What the user wants.

    Attributes:
        min_workers: the number of workers that stay without a run, once there was one.
        idle_timeout_s: the seconds without a run after which a worker goes, and when all have gone,
            the fork server; None: never.
        max_runs_per_worker: the number of runs after which a worker is replaced; None: never.
    """

    min_workers: int = 0
    idle_timeout_s: float | None = None
    max_runs_per_worker: int | None = None


class Staffing:
    """Decides that for one pool.

    The pool is *awake* or *asleep*. Asleep, it has no workers, or will have none as soon as their
    runs have ended. Every run, and every warm-up, wakes it.

    Args:
        workers: the workers. What is decided here changes them at once.
        max_workers: the number of workers that may have runs at once.
        policy: what the user wants.

    Attributes:
        limits_runs: whether a worker may have so many runs only.
        is_asleep: whether the pool is asleep.
        recycled: the number of workers that were replaced after so many runs, or for their memory.
    """

    def __init__(self, workers: Workers, max_workers: int, policy: StaffingPolicy) -> None:
        self._workers = workers
        self._max_workers = max_workers
        self._policy = policy
        self.limits_runs = policy.max_runs_per_worker is not None
        self._warm = 0  # how many were asked for, whatever the policy says
        self._has_given_up = False
        self._idle_deaths = 0
        self._quiet_since: float | None = None
        self.is_asleep = False
        self._keeps_fork_server = False
        self._has_fork_server = True
        self.recycled = 0

    @property
    def has_fork_server(self) -> bool:
        """Whether there is a fork server, as far as it was not told to end."""
        return self._has_fork_server

    @property
    def floor(self) -> int:
        """The number of workers that there are to be, whether or not there are runs."""
        if self.is_asleep or self._has_given_up:
            return 0
        return max(self._warm, self._policy.min_workers)

    @property
    def readiness(self) -> Readiness:
        """Whether the workers have started that were asked for, of which there is one at least."""
        if self.is_asleep or not self._workers.ready:
            return Readiness.NONE
        wanted = max(1, self._warm, self._policy.min_workers)
        are_all = self._workers.ready >= wanted or (
            self._workers.is_as_full_as_can_be and self._workers.ready == self._workers.staying
        )
        return Readiness.ALL if are_all else Readiness.SOME

    # Events

    def wake(self) -> None:
        """There is a run."""
        self.is_asleep = False
        self._has_given_up = False
        self._has_fork_server = True

    def warm_up(self) -> None:
        """All workers are wanted."""
        self.wake()
        self._warm = self._max_workers
        self._quiet_since = None  # else the timer might have run out already

    def sleep(self, *, keeps_fork_server: bool) -> None:
        """The workers are to go when their runs have ended, and then the fork server."""
        self.is_asleep = True
        self._warm = 0
        self._keeps_fork_server = keeps_fork_server

    def give_up(self) -> None:
        """Workers cannot be had: wait for the next run."""
        self._has_given_up = True

    def run_ended(self, worker: Worker) -> None:
        """A run has ended in this worker."""
        self._idle_deaths = 0
        self.recycled += worker.served == self._policy.max_runs_per_worker

    def worker_ready(self, now: float) -> None:
        """A worker has started: restart the clock of the quiet pool."""
        if self._quiet_since is not None:
            self._quiet_since = now

    def died_idle(self, worker: Worker, now: float) -> bool:
        """A worker that had no run has died.

        Returns:
            Whether workers are given up now.
        """
        if now - worker.since > _LONG_IDLE_S:
            self._idle_deaths = 0
        elif not worker.served:
            self._idle_deaths += 1
            if self._idle_deaths >= MAX_IDLE_DEATHS * self._max_workers:
                self._idle_deaths = 0
                self.give_up()
                return True
        return False

    def replace_all(self) -> None:
        """No run is to begin in a worker that there is now. (Unread runs are to be taken back.)"""
        for id in self._workers:
            self._workers.replace(id)
        self._has_given_up = False

    def note_given(self, id: WorkerId) -> list[Action[Any]]:
        """A worker got a run. If that is its last one, its successor starts in time."""
        worker = self._workers[id]
        most = self._policy.max_runs_per_worker
        if most is None or worker.served + len(worker.runs) < most:
            return []
        self._workers.got_last_run(id)
        if not self._starts_successors or not self._workers.has_room:
            return []
        return [StartWorker(self._workers.add())]

    def outgrown(self, id: WorkerId) -> list[Action[Any]]:
        """A worker takes too much memory: it goes when its successor has started."""
        successor = self._workers.start_successor(id) if self._starts_successors else None
        if successor is None:
            return []
        self.recycled += 1
        return [StartWorker(successor)]

    # What there is to do

    def wakes_at(self) -> float | None:
        """The time at which somebody has been idle for too long; None: not before an event."""
        if self._policy.idle_timeout_s is None or self.is_asleep:
            return None
        if self._workers.staying > self._workers.ready:
            return None  # who asked for those that start is to see all of them ready
        due = self._sleeps_at
        if self._workers.idle and self._workers.staying > self._policy.min_workers:
            longest = self._workers[next(iter(self._workers.idle))]
            idle_due = longest.since + self._policy.idle_timeout_s
            due = idle_due if due is None else min(due, idle_due)
        return due

    def dismiss_the_idle(self, now: float) -> list[Action[Any]]:
        """Dismiss who has been idle for too long; if that is everybody, the pool falls asleep."""
        actions: list[Action[Any]] = []
        while (due := self.wakes_at()) is not None and due <= now:
            self._warm = 0
            if due == self._sleeps_at:
                self.sleep(keeps_fork_server=False)
            else:
                actions.append(self._dismiss(next(iter(self._workers.idle))))
        return actions

    def adjust(self, now: float, *, unfinished: int, some_wait: bool) -> list[Action[Any]]:
        """Dismiss and start workers until there are as many as there are to be.

        Args:
            now: the time.
            unfinished: the number of runs that have not ended.
            some_wait: whether some of them have no worker.
        """
        if unfinished:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        workers = self._workers
        actions: list[Action[Any]] = [self._dismiss(id) for id in list(workers.spent)]
        if not self.is_asleep:
            while workers.staying < self.floor and workers.has_room:
                actions.append(StartWorker(workers.add()))
        elif not some_wait:
            actions += [self._dismiss(id) for id in sorted({*workers.expected, *workers.idle})]
            is_empty = not unfinished and not workers
            if is_empty and self._has_fork_server and not self._keeps_fork_server:
                self._has_fork_server = False
                actions.append(EndForkServer())
        return actions

    @property
    def _sleeps_at(self) -> float | None:
        """The time at which the pool falls asleep, if no run comes."""
        timeout_s = self._policy.idle_timeout_s
        if self._quiet_since is None or timeout_s is None or self._policy.min_workers:
            return None
        return self._quiet_since + timeout_s

    @property
    def _starts_successors(self) -> bool:
        return not (self.is_asleep or self._has_given_up)

    def _dismiss(self, id: WorkerId) -> EndWorker:
        self._workers.dismiss(id)
        return EndWorker(id)
