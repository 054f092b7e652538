"""Schedulers for tests that look at one event at a time, in the states that they begin with."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from compilepool.supervisor.rules.actions import Action, SendRun, StartWorker, TakeBack
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_RUN_S
from compilepool.supervisor.rules.scheduler import Scheduler

# mypy: disable-error-code="override"

NOW = 100.0
SOON = NOW + SHORT_RUN_S / (2 * MAX_AHEAD)
LATE = NOW + SHORT_RUN_S * 2


class Settling(Scheduler[str]):
    """Returns from each event what there is to do after it."""

    _now = 0.0

    def submit(
        self,
        run: int,
        now: float,
        *,
        may_go_ahead: bool,
        priority: int = 0,
        retries: int = 0,
        client: int = 0,
    ) -> list[Action[str]]:
        super().submit(
            run, may_go_ahead=may_go_ahead, priority=priority, retries=retries, client=client
        )
        return self.tick(now)

    def cancel(self, run: int, now: float) -> list[Action[str]]:
        super().cancel(run)
        return self.tick(now)

    def cancel_queued(self, now: float) -> list[Action[str]]:
        """Cancel every run that no worker has."""
        for run in list(self._runs._runs):
            if self.worker_of(run) is None:
                super().cancel(run)
        return self.tick(now)

    def warm_up(self, now: float) -> list[Action[str]]:
        super().warm_up(now)
        return self.tick(now)

    def quiesce(self, now: float, *, keeps_fork_server: bool) -> list[Action[str]]:
        super().quiesce(keeps_fork_server=keeps_fork_server)
        return self.tick(now)

    def reload(self, now: float) -> list[Action[str]]:
        super().reload()
        return self.tick(now)

    def worker_ready(self, worker: int, now: float) -> list[Action[str]]:
        super().worker_ready(worker, now)
        return self.tick(now)

    def worker_refused(self, worker: int, reason: str, now: float) -> list[Action[str]]:
        super().worker_refused(worker, reason)
        return self.tick(now)

    def worker_crashing(self, worker: int, now: float) -> list[Action[str]]:
        super().worker_crashing(worker)
        return self.tick(now)

    def worker_lost(
        self,
        worker: int,
        unread: Sequence[int],
        reason: str,
        now: float,
        *,
        is_innocent: bool = False,
    ) -> list[Action[str]]:
        super().worker_lost(worker, unread, reason, now, is_innocent=is_innocent)
        return self.tick(now)

    def fork_server_lost(
        self,
        unread: Mapping[int, Sequence[int]],
        reason: str,
        start_reason: str,
        now: float,
        *,
        was_leaving: bool = False,
    ) -> list[Action[str]]:
        super().fork_server_lost(unread, reason, start_reason, was_leaving=was_leaving)
        return self.tick(now)

    def broken(self, reason: str) -> list[Action[str]]:
        super().broken(reason)
        return self.tick(self._now)

    def run_finished(
        self,
        worker: int,
        run: int,
        now: float,
        *,
        is_outgrown: bool = False,
        took_s: float = 0.0,
    ) -> list[Action[str]]:
        super().run_finished(worker, run, now, took_s=took_s)
        if is_outgrown:
            super().torn_down(worker, now, is_outgrown=True)
        return self.tick(now)

    def taken_back(
        self, worker: int, runs: Sequence[int], now: float, *, is_tearing_down: bool = False
    ) -> list[Action[str]]:
        super().taken_back(worker, runs, now, is_tearing_down=is_tearing_down)
        return self.tick(now)

    def not_begun(self, worker: int, now: float) -> list[Action[str]]:
        super().not_begun(worker)
        return self.tick(now)

    def torn_down(self, worker: int, now: float, *, is_outgrown: bool = False) -> list[Action[str]]:
        super().torn_down(worker, now, is_outgrown=is_outgrown)
        return self.tick(now)

    def over_limit(self, worker: int, run: int) -> list[Action[str]]:
        super().over_limit(worker, run)
        return self.tick(self._now)

    def memory_seen(self, free: int, used: Mapping[int, int], now: float) -> list[Action[str]]:
        super().memory_seen(free, used)
        return self.tick(now)

    def tick(self, now: float) -> list[Action[str]]:
        """The time passes."""
        self._now = now
        return self.next_actions(now)


def with_ready_workers(count: int, max_workers: int | None = None) -> Settling:
    """A scheduler whose workers 1 to `count` are ready and idle."""
    scheduler: Settling = Settling(count if max_workers is None else max_workers)
    for job in range(-count, 0):
        scheduler.submit(job, NOW, may_go_ahead=False)
    for worker in range(1, count + 1):
        scheduler.worker_ready(worker, NOW)
    for worker in range(1, count + 1):
        (job,) = scheduler.runs_of(worker)
        scheduler.run_finished(worker, job, LATE)
    return scheduler


def with_a_job_ahead() -> Settling:
    """Its only worker runs job 1, and has job 2 in its socket."""
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, SOON)
    assert scheduler.submit(1, NOW, may_go_ahead=True) == [SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=True) == [SendRun(1, 2)]
    return scheduler


def crash(scheduler: Settling, worker: int, unread: Sequence[int]) -> list[Action[str]]:
    """A worker crashes, and its unread jobs are taken back when the scheduler wants them.

    Returns:
        What else the scheduler wants, in order.
    """
    wanted: list[Action[str]] = []
    pending = deque(scheduler.worker_crashing(worker, NOW))
    while pending:
        action = pending.popleft()
        if action == TakeBack(worker):
            pending.extendleft(reversed(scheduler.taken_back(worker, unread, NOW)))
        else:
            wanted.append(action)
    assert not set(unread) & set(scheduler.runs_of(worker))
    return wanted


def with_a_crashing_worker() -> Settling:
    """Its worker 1 crashes with job 1, worker 2 starts in its place with job 2, and job 3 waits."""
    scheduler = with_ready_workers(1)
    for job in (1, 2, 3):
        scheduler.submit(job, NOW, may_go_ahead=False)
    assert crash(scheduler, 1, []) == [StartWorker(2), SendRun(2, 2)]
    return scheduler
