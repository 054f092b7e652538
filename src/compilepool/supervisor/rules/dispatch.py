"""Gives the jobs that wait to workers, and sees to it that there are workers: pure."""

from __future__ import annotations

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    Cause,
    SendJob,
    StartWorker,
    TakeBack,
    Worker,
)
from compilepool.supervisor.rules.queue import JobTable
from compilepool.supervisor.rules.staffing import Staffing
from compilepool.supervisor.rules.workers import Roster

SHORT_JOB_S = 0.005
"""Seconds. Beyond it a round trip to the supervisor is no part of a job's time worth saving."""

MAX_AHEAD = 16
"""So many jobs may wait in a busy worker's socket: it then seldom has to be woken up."""


class Dispatch(Generic[Cause]):
    """What there is to do after each event of one pool.

    Args:
        jobs: the unfinished jobs.
        workers: the workers.
        staffing: how many of them there are to be.
    """

    def __init__(self, jobs: JobTable[Cause], workers: Roster, staffing: Staffing) -> None:
        self._jobs = jobs
        self._workers = workers
        self._staffing = staffing
        self.ahead = 0
        """How many jobs may go ahead to a worker, if they are like the one that has ended last."""
        self.broken: Cause | None = None
        """Why no worker can be started, if that is so."""

    def job_took(self, seconds: float) -> None:
        """A job has ended that took so long."""
        # All that wait in one worker's socket should take no longer than a short job may.
        fitting = SHORT_JOB_S / seconds if seconds > 0 else MAX_AHEAD
        self.ahead = int(min(fitting, MAX_AHEAD))

    def next_actions(self, now: float) -> list[Action[Cause]]:
        """What there is to do now."""
        workers = self._workers
        actions: list[Action[Cause]] = []
        if self.broken is not None:
            actions += self._jobs.fail_waiting(self.broken)
        elif workers.idle and workers.starting:
            self._jobs.ask_anew()
            # Somebody is idle while a starting worker holds a job, older than any in the queue.
            return [TakeBack(next(iter(workers.starting)))]
        else:
            self._jobs.ask_anew()
            if self._jobs.some_wait:
                self._give_to_the_idle(actions, now)
                self._give_to_those_that_start(actions, now)
                self._give_ahead(actions, now)
        return actions + self._staffing.adjust(
            now, unfinished=len(self._jobs), some_wait=self._jobs.some_wait
        )

    def share_out(self) -> list[Action[Cause]]:
        """When somebody is idle, and nothing else is left for him: what waits ahead elsewhere.

        If that would take any time worth mentioning.
        """
        workers = self._workers
        if workers.idle and self.ahead < MAX_AHEAD and not self._jobs.some_wait:
            for worker in workers.unreported:
                if len(workers[worker].jobs) > 2:
                    return [TakeBack(worker)]
        return []

    def _give_to_the_idle(self, actions: list[Action[Cause]], now: float) -> None:
        workers = self._workers
        while workers.idle and workers.may_run_more and self._jobs.next():
            worker, _ = workers.idle.popitem()
            self._give(actions, worker, now)

    def _give_to_those_that_start(self, actions: list[Action[Cause]], now: float) -> None:
        workers = self._workers
        while workers.expected and workers.may_run_more and self._jobs.next():
            self._give(actions, next(iter(workers.expected)), now)
        while workers.has_room and workers.may_run_more and self._jobs.next():
            worker = workers.add()
            actions.append(StartWorker(worker))
            self._give(actions, worker, now)

    def _give_ahead(self, actions: list[Action[Cause]], now: float) -> None:
        """While jobs are short, a round trip to the supervisor would be much of their time."""
        # While others start, who is there already is not to have all.
        most = min(self.ahead, 1) if self._workers.starting else self.ahead
        for waiting in range(1, most + 1):
            for worker in self._workers.unreported:
                state = self._workers[worker]
                if len(state.jobs) > waiting or not state.may_have_more:
                    continue
                job = self._jobs.next()
                if job is None or not job.may_go_ahead:
                    return
                self._give(actions, worker, now)

    def _give(self, actions: list[Action[Cause]], worker: Worker, now: float) -> None:
        job = self._jobs.take(worker)
        self._workers.give(worker, job, now)
        actions.append(SendJob(worker, job))
        if self._staffing.limits_jobs:
            actions += self._staffing.has_got_job(worker)
