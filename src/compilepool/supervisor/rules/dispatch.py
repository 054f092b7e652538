"""Gives the runs that wait to workers.

Rules, in this order:

1. A worker that is idle gets the first run of the queue. Who became idle last is first.
2. A worker that starts gets its first run before it is ready.
3. Where there is room, another worker starts, with its first run.
4. While runs are short, a busy worker gets its next ones ahead, so that it need not wait for them.
"""

from __future__ import annotations

from compilepool.light_typing import Any
from compilepool.supervisor.rules.actions import (
    Action,
    ReportStarted,
    RunId,
    SendRun,
    StartWorker,
    TakeBack,
    WorkerId,
)
from compilepool.supervisor.rules.queue import ScheduledRuns
from compilepool.supervisor.rules.staffing import Staffing
from compilepool.supervisor.rules.workers import Workers

SHORT_RUN_S = 0.005
"""Seconds. Beyond it a round trip to the supervisor is no part of a run's time worth saving."""

MAX_AHEAD = 16
"""The number of runs that may wait in a busy worker's socket: it seldom has to be woken up then."""


class Dispatch:
    """Gives runs to workers.

    Args:
        runs: the unfinished runs.
        workers: the workers.
        staffing: decides how many workers there are to be.

    Attributes:
        ahead: how many runs may go ahead to a worker, if they are like the one that ended last.
    """

    def __init__(self, runs: ScheduledRuns[Any], workers: Workers, staffing: Staffing) -> None:
        self._runs = runs
        self._workers = workers
        self._staffing = staffing
        self.ahead = 0

    def run_took(self, seconds: float) -> None:
        """A run has ended that took so long."""
        # All that wait in one worker's socket should take no longer than a short run may.
        fitting = SHORT_RUN_S / seconds if seconds > 0 else MAX_AHEAD
        self.ahead = int(min(fitting, MAX_AHEAD))

    def give_out(self, now: float) -> list[Action[Any]]:
        """Give runs to workers, as far as there are both."""
        actions: list[Action[Any]] = []
        if self._runs.some_wait:
            self._give_to_the_idle(actions, now)
            self._give_to_those_that_start(actions, now)
            self._give_ahead(actions, now)
        return actions

    def take_back_for_the_idle(self) -> list[TakeBack]:
        """If a worker is idle, take back a run that waits for another worker."""
        workers = self._workers
        if not workers.idle:
            return []
        # A worker that starts would be slower.
        for id in workers.loaded:
            if workers[id].may_hold_unread:
                return [TakeBack(id)]
        # Unless runs are so short that nobody would notice, and only where no run waits anyway.
        may_share = self.ahead < MAX_AHEAD and workers.may_run_more
        if may_share and not self._runs.some_wait:
            for id in workers.unreported:
                if len(workers[id].runs) > 2 and workers[id].may_hold_unread:
                    return [TakeBack(id)]
        return []

    def report_long_runs(self, now: float) -> tuple[list[Action[Any]], list[TakeBack]]:
        """Report the runs that turn out to be long.

        Returns:
            The reports; and what is to be taken back first: runs that wait behind a long one.
        """
        reports: list[Action[Any]] = []
        wanted: list[TakeBack] = []
        for id in list(self._workers.unreported):
            worker = self._workers[id]
            if worker.since + SHORT_RUN_S > now:
                break
            del self._workers.unreported[id]
            if len(worker.runs) > 1:
                worker.is_report_due = True
                wanted.append(TakeBack(id))
            else:
                reports.append(ReportStarted(worker.runs[0]))
        return reports, wanted

    def _give_to_the_idle(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        while workers.idle and workers.may_run_more:
            worker = next(reversed(workers.idle))
            run = self._runs.take_first(worker)
            if run is None:
                return
            self._give(actions, worker, run, now)

    def _give_to_those_that_start(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        while workers.expected and workers.may_run_more:
            worker = next(iter(workers.expected))
            run = self._runs.take_first(worker)
            if run is None:
                return
            self._give(actions, worker, run, now)
        while workers.has_room and workers.may_run_more:
            worker = workers.next_id
            run = self._runs.take_first(worker)
            if run is None:
                return
            actions.append(StartWorker(workers.add()))
            self._give(actions, worker, run, now)

    def _give_ahead(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        # While others start, those that are there already are not to have all.
        most = min(self.ahead, 1) if workers.loaded else self.ahead
        for waiting in range(1, most + 1):
            for id in workers.unreported:
                worker = workers[id]
                if len(worker.runs) > waiting or not worker.state.gets_runs:
                    continue
                run = self._runs.take_first(id, to_go_ahead=True)
                if run is None:
                    return
                self._give(actions, id, run, now)

    def _give(self, actions: list[Action[Any]], worker: WorkerId, run: RunId, now: float) -> None:
        self._workers.give(worker, run, now)
        actions.append(SendRun(worker, run))
        if self._staffing.limits_runs:
            actions += self._staffing.note_given(worker)
