"""A scheduler for tests that look at one event at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compilepool.supervisor.rules.actions import Action
from compilepool.supervisor.rules.scheduler import Scheduler

# mypy: disable-error-code="override"


class Settling(Scheduler[str]):
    """Returns from each event what there is to do after it."""

    _now = 0.0

    def submit(
        self, run: int, now: float, *, may_go_ahead: bool, priority: int = 0, retries: int = 0
    ) -> list[Action[str]]:
        super().submit(run, may_go_ahead=may_go_ahead, priority=priority, retries=retries)
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
        super().warm_up()
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
        is_from_outside: bool = False,
    ) -> list[Action[str]]:
        super().worker_lost(worker, unread, reason, now, is_from_outside=is_from_outside)
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
        super().run_finished(worker, run, now, is_outgrown=is_outgrown, took_s=took_s)
        return self.tick(now)

    def taken_back(self, worker: int, runs: Sequence[int], now: float) -> list[Action[str]]:
        super().taken_back(worker, runs, now)
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
