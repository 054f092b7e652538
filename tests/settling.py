"""A scheduler for tests that look at one event at a time."""

from __future__ import annotations

from compilepool.supervisor.rules.actions import Action
from compilepool.supervisor.rules.scheduler import Scheduler


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
