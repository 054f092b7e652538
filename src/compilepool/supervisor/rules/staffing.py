"""Decides how many workers the pool has, and which of them go."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.supervisor.rules.actions import (
    Action,
    EndForkServer,
    EndWorker,
    StartWorker,
    WorkerId,
)
from compilepool.supervisor.rules.queue import ScheduledRuns
from compilepool.supervisor.rules.workers import Worker, Workers
from compilepool.wire.messages import Readiness

MAX_START_FAILURES = 5
"""The number of workers in a row that may die while they start. Then all waiting runs fail."""

MAX_IDLE_DEATHS = 5
"""For each of `max_workers`: the number of idle workers that may die in a row, each soon after its
start and before it has ended a run. Then idle workers are not replaced until there is a run."""

MAX_TEARDOWN_S = 1.0
"""A worker that tears down for longer, while runs were waiting for it, is replaced."""

_LONG_IDLE_S = 10.0  # a worker that was idle for longer did not die soon


class StaffingPolicy(NamedTuple):
    """The user's settings.

    Attributes:
        min_workers: the number of workers that stay even if they have no run.
        idle_timeout_s: the seconds without a run after which a worker goes; after the last worker,
            the fork server goes; None means never.
        max_runs_per_worker: the number of runs after which a worker is replaced; None means never.
    """

    min_workers: int = 0
    idle_timeout_s: float | None = None
    max_runs_per_worker: int | None = None


class Staffing:
    """Decides how many workers one pool has.

    The pool is *awake* or *asleep*. While it is asleep, it has no workers, or only workers that go
    when their runs have ended. Every run and every warm-up wakes it.

    Args:
        workers: the workers. Decisions change their state at once.
        max_workers: the number of workers that may have runs at once.
        policy: the user's settings.

    Attributes:
        limits_runs: whether the number of runs per worker is limited.
        is_asleep: whether the pool is asleep.
        recycled: the number of workers that were replaced after their last run or for their memory.
    """

    def __init__(self, workers: Workers, max_workers: int, policy: StaffingPolicy) -> None:
        self._workers = workers
        self._max_workers = max_workers
        self._policy = policy
        self.limits_runs = policy.max_runs_per_worker is not None
        self._warm = 0  # the number of workers that a warm-up has asked for
        self._has_given_up = False
        self._start_failures = 0
        self._idle_deaths = 0
        self._quiet_since: float | None = None
        self.is_asleep = False
        self._keeps_fork_server = False
        self._has_fork_server = True
        self.recycled = 0

    @property
    def has_fork_server(self) -> bool:
        """Whether there is a fork server that was not told to exit."""
        return self._has_fork_server

    @property
    def floor(self) -> int:
        """The number of workers that the pool has even without runs."""
        if self.is_asleep or self._has_given_up:
            return 0
        return max(self._warm, self._policy.min_workers)

    @property
    def readiness(self) -> Readiness:
        """Whether all, some or none of the wanted workers are ready. At least one is wanted."""
        if self.is_asleep or not self._workers.ready:
            return Readiness.NONE
        wanted = max(1, self._warm, self._policy.min_workers)
        are_all = self._workers.ready >= wanted or (
            self._workers.is_at_limit and self._workers.ready == self._workers.staying
        )
        return Readiness.ALL if are_all else Readiness.SOME

    # Events

    def wake(self) -> None:
        """There is a run."""
        self.is_asleep = False
        self._has_given_up = False
        self._has_fork_server = True

    def raise_limit(self, max_workers: int) -> None:
        """Allow up to `max_workers` workers, if that is more than before.

        A warm-up that has asked for all workers has asked for the new ones, too.
        """
        self._max_workers = max(self._max_workers, max_workers)
        self._warm = self._max_workers if self._warm else 0

    def warm_up(self, now: float) -> None:
        """A warm-up wants all workers. Restart the idle clocks of the pool and of idle workers."""
        self.wake()
        self._warm = self._max_workers
        self._quiet_since = None
        for id in list(self._workers.idle):
            self._workers.restart_clock(id, now)

    def sleep(self, *, keeps_fork_server: bool) -> None:
        """Let the workers go when their runs have ended, and then the fork server."""
        self.is_asleep = True
        self._warm = 0
        self._keeps_fork_server = keeps_fork_server

    def give_up(self) -> None:
        """Start no workers until the next run, because workers cannot be started."""
        self._has_given_up = True

    def run_ended(self, worker: Worker) -> None:
        """A run has ended in the worker."""
        self._idle_deaths = 0
        self.recycled += worker.served == self._policy.max_runs_per_worker

    def worker_ready(self, now: float) -> None:
        """A worker has started. Restart the idle clock of the pool."""
        self._start_failures = 0
        if self._quiet_since is not None:
            self._quiet_since = now

    def workers_lost(self) -> None:
        """Workers are gone with their fork server. The idle clock of the pool starts anew.

        Otherwise, a pool whose workers have just been about to start might fall asleep.
        """
        self._quiet_since = None

    def start_failed(self) -> bool:
        """A worker has died while starting.

        Returns:
            Whether too many have in a row, so that none starts until the next run.
        """
        self._start_failures += 1
        if self._start_failures < MAX_START_FAILURES:
            return False
        self._start_failures = 0
        self.give_up()
        return True

    def worker_died(self, worker: Worker, now: float) -> bool:
        """A worker has died. Its start had not failed.

        Returns:
            Whether too many idle workers have died in a row, so that none starts until the next
            run.
        """
        if worker.state.is_leaving or not worker.state.has_started or worker.runs:
            return False
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
        """Let no run begin in the current workers. The caller takes unread runs back."""
        for id in self._workers:
            self._workers.replace(id)
        self._start_failures = 0
        self._has_given_up = False

    def note_given(self, id: WorkerId) -> list[Action[Any]]:
        """The worker has got a run. If it is the last that it may have, start a successor."""
        worker = self._workers[id]
        most = self._policy.max_runs_per_worker
        if most is None or worker.served + len(worker.runs) < most:
            return []
        self._workers.got_last_run(id)
        if not self._starts_successors or not self._workers.has_room:
            return []
        return [StartWorker(self._workers.add())]

    def outgrown(self, id: WorkerId) -> list[Action[Any]]:
        """The worker takes too much memory. It goes when its successor has started."""
        successor = self._workers.start_successor(id) if self._starts_successors else None
        if successor is None:
            return []
        self.recycled += 1
        return [StartWorker(successor)]

    # Actions

    def wakes_at(self) -> float | None:
        """The time at which `adjust` must be called again; None if an event must come first."""
        due = [each for each in (self._idle_due(), self._teardown_due()) if each is not None]
        return min(due, default=None)

    def _teardown_due(self) -> float | None:
        """The time at which a worker has torn down for too long; None if none tears down."""
        for id in self._workers.tearing_down:
            return self._workers[id].since + MAX_TEARDOWN_S
        return None

    def _idle_due(self) -> float | None:
        """The time of the next idle timeout; None if an event must come first."""
        if self._policy.idle_timeout_s is None or self.is_asleep:
            return None
        if self._workers.staying > self._workers.ready:
            return None  # the warm-up that wants the starting workers must see all of them ready
        due = self._sleeps_at
        if self._workers.idle and self._workers.staying > self._policy.min_workers:
            longest = self._workers[next(iter(self._workers.idle))]
            idle_due = longest.since + self._policy.idle_timeout_s
            due = idle_due if due is None else min(due, idle_due)
        return due

    def adjust(self, now: float, runs: ScheduledRuns[Any]) -> list[Action[Any]]:
        """Dismiss and start workers until the pool has as many as it should.

        Args:
            now: the time.
            runs: the unfinished runs.
        """
        if runs:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        workers = self._workers
        while (due := self._teardown_due()) is not None and due <= now:
            workers.replace(next(iter(workers.tearing_down)))
        actions = self._dismiss_overdue(now)
        actions += [self._dismiss(id) for id in list(workers.spent)]
        if not self.is_asleep:
            while workers.staying < self.floor and workers.has_room:
                actions.append(StartWorker(workers.add()))
        elif not runs.some_wait:
            unused = {*workers.expected, *workers.idle, *workers.tearing_down}
            actions += [self._dismiss(id) for id in sorted(unused)]
            is_empty = not runs and not workers
            if is_empty and self._has_fork_server and not self._keeps_fork_server:
                self._has_fork_server = False
                actions.append(EndForkServer())
        return actions

    def _dismiss_overdue(self, now: float) -> list[Action[Any]]:
        """Dismiss workers that were idle for too long. Without any run, the pool falls asleep."""
        actions: list[Action[Any]] = []
        while (due := self._idle_due()) is not None and due <= now:
            self._warm = 0
            if due == self._sleeps_at:
                self.sleep(keeps_fork_server=False)
            else:
                actions.append(self._dismiss(next(iter(self._workers.idle))))
        return actions

    @property
    def _sleeps_at(self) -> float | None:
        """The time at which the pool falls asleep if no run comes; None means never."""
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
