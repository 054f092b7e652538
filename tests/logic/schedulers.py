"""Schedulers for tests that look at one event at a time, in the states that they begin with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from compilepool.supervisor.actions import Action, SendJob, StartWorker, TakeBack
from compilepool.supervisor.dispatch import MAX_AHEAD, SHORT_JOB_S
from compilepool.supervisor.scheduler import Scheduler

NOW = 100.0
SOON = NOW + SHORT_JOB_S / (2 * MAX_AHEAD)
LATE = NOW + SHORT_JOB_S * 2


class Settling(Scheduler[str]):
    """Settles after each event."""

    def submit(  # type: ignore[override] # it takes the time and returns what follows
        self, job: int, now: float, *, may_go_ahead: bool, priority: int = 0, retries: int = 0
    ) -> list[Action[str]]:
        super().submit(job, may_go_ahead=may_go_ahead, priority=priority, retries=retries)
        return self.settle(now)

    def job_finished(
        self,
        worker: int,
        job: int,
        now: float,
        *,
        is_outgrown: bool = False,
        took_s: float = 0.0,
    ) -> list[Action[str]]:
        actions = super().job_finished(worker, job, now, is_outgrown=is_outgrown, took_s=took_s)
        return actions + self.settle(now)


def with_ready_workers(count: int, max_workers: int | None = None) -> Settling:
    """A scheduler whose workers 1 to `count` are ready and idle."""
    scheduler: Settling = Settling(count if max_workers is None else max_workers)
    for job in range(-count, 0):
        scheduler.submit(job, NOW, may_go_ahead=False)
    for worker in range(1, count + 1):
        scheduler.worker_ready(worker, NOW)
        (job,) = scheduler.jobs_of(worker)
        scheduler.job_finished(worker, job, LATE)
    return scheduler


def with_a_job_ahead() -> Settling:
    """Its only worker runs job 1, and has job 2 in its socket."""
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.job_finished(1, 0, SOON)
    assert scheduler.submit(1, NOW, may_go_ahead=True) == [SendJob(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=True) == [SendJob(1, 2)]
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
    assert not set(unread) & set(scheduler.jobs_of(worker))
    return wanted


def with_a_crashing_worker() -> Settling:
    """Its worker 1 crashes with job 1, worker 2 starts in its place with job 2, and job 3 waits."""
    scheduler = with_ready_workers(1)
    for job in (1, 2, 3):
        scheduler.submit(job, NOW, may_go_ahead=False)
    assert crash(scheduler, 1, []) == [StartWorker(2), SendJob(2, 2)]
    return scheduler
