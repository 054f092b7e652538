"""Gives waiting runs to workers.

The rules, in this order:

1. An idle worker gets the first run of the queue. The worker that became idle last comes first.
2. A starting worker gets its first run before it is ready.
3. If there is room for another worker, one starts, with its first run.
4. While runs are short, a busy worker gets its next runs ahead, so that it need not wait for them.
"""

from __future__ import annotations

from compilepool.light_typing import Any
from compilepool.supervisor.rules.actions import (
    Action,
    ReportStarted,
    RunId,
    SendRun,
    StartWorker,
    WorkerId,
)
from compilepool.supervisor.rules.queue import ScheduledRuns
from compilepool.supervisor.rules.staffing import Staffing
from compilepool.supervisor.rules.workers import Workers

SHORT_RUN_S = 0.005
"""Seconds. In a longer run, a round trip to the supervisor is too small a part to be saved."""

MAX_AHEAD = 16
"""The number of runs that may wait in a busy worker's socket. Together they keep it awake."""


class Dispatch:
    """Gives runs to workers.

    Args:
        runs: the unfinished runs.
        workers: the workers.
        staffing: decides how many workers the pool has.

    Attributes:
        ahead: how many runs may go ahead to a worker, if they take as long as the last run.
    """

    def __init__(self, runs: ScheduledRuns[Any], workers: Workers, staffing: Staffing) -> None:
        self._runs = runs
        self._workers = workers
        self._staffing = staffing
        self.ahead = 0

    def run_took(self, seconds: float) -> None:
        """Note how long the run took that has ended last."""
        # Together, the runs in a worker's socket should take no longer than one short run.
        fitting = SHORT_RUN_S / seconds if seconds > 0 else MAX_AHEAD
        self.ahead = int(min(fitting, MAX_AHEAD))

    def give_out(self, now: float) -> list[Action[Any]]:
        """Give waiting runs to workers that may have another run."""
        actions: list[Action[Any]] = []
        if self._runs.some_wait:
            self._give_to_idle(actions, now)
            self._give_to_starting(actions, now)
            self._give_ahead(actions, now)
        return actions

    def take_back_for_idle(self) -> list[WorkerId]:
        """If a worker is idle, take back runs that wait in another worker's socket."""
        workers = self._workers
        if not workers.idle:
            return []
        # A starting worker would begin the run later.
        for id in workers.loaded:
            if workers[id].may_hold_unread:
                return [id]
        # A busy worker keeps its runs if they are too short for anybody to notice. It also keeps
        # them while others wait in the queue, which the idle worker gets first.
        may_share = self.ahead < MAX_AHEAD and workers.may_run_more
        if may_share and not self._runs.some_wait:
            for id in workers.unreported:
                if len(workers[id].runs) > 2 and workers[id].may_hold_unread:
                    return [id]
        return []

    def report_long_runs(self, now: float) -> tuple[list[Action[Any]], list[WorkerId]]:
        """Report the runs that turn out to be long.

        Returns:
            The reports, and the workers from which runs must be taken back first, because
            these wait behind a long run.
        """
        reports: list[Action[Any]] = []
        wanted: list[WorkerId] = []
        for id in list(self._workers.unreported):
            worker = self._workers[id]
            if worker.since + SHORT_RUN_S > now:
                break
            del self._workers.unreported[id]
            if len(worker.runs) > 1:
                worker.is_report_due = True
                wanted.append(id)
            else:
                reports.append(ReportStarted(worker.runs[0]))
        return reports, wanted

    def _give_to_idle(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        while workers.idle and workers.may_run_more:
            worker = next(reversed(workers.idle))
            run = self._runs.take_first(worker)
            if run is None:
                return
            self._give(actions, worker, run, now)

    def _give_to_starting(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        while workers.may_run_more and (workers.expected or workers.has_room):
            worker = next(iter(workers.expected), workers.next_id)
            run = self._runs.take_first(worker)
            if run is None:
                return
            if worker == workers.next_id:
                actions.append(StartWorker(workers.add()))
            self._give(actions, worker, run, now)

    def _give_ahead(self, actions: list[Action[Any]], now: float) -> None:
        workers = self._workers
        # While workers start, the others must leave runs for them.
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
