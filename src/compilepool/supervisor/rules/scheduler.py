"""Which run goes to which worker, and what a death means for the queue.

A pure state machine with no I/O and no clock. An event changes the state, and nothing else;
`next_actions` says what to do, for every event alike. Whoever drives it calls `next_actions` after
events, carries out what it returns, in order, and calls it again until it returns nothing.

A worker's socket is part of the worker's state: the supervisor can take a run back from it until
the worker reads it. Workers never announce that they begin a run: the run that a worker has begun
is the last one that cannot be taken back. So a worker that starts can have its first run before it
is ready, and a busy one its next runs, and neither can hold a run back: it returns to the queue
when another worker is idle, or when the run ahead of it is long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    EndWorker,
    KillWorker,
    Reason,
    ReplaceForkServer,
    ReportNoWorkers,
    ReportStarted,
    RunId,
    TakeBack,
    WorkerId,
)
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_RUN_S, Dispatch
from compilepool.supervisor.rules.queue import ScheduledRun, ScheduledRuns
from compilepool.supervisor.rules.staffing import Staffing, StaffingPolicy
from compilepool.supervisor.rules.states import CONDEMNED, DISMISSED
from compilepool.supervisor.rules.workers import Worker, Workers, failed_to_start
from compilepool.wire.messages import Readiness

MAX_START_FAILURES = 5
"""The number of workers in a row that may die while they start. Then the runs that wait fail."""

MAX_RERUNS = 1
"""The number of times that a run may run again whose worker was lost with its fork server."""


class Scheduler(Generic[Reason]):
    """The queue and the workers of one pool.

    Args:
        max_workers: the number of workers that may have runs at once.
        expected_memory: tells how many bytes of memory a run will probably take.
        staffing: what the user wants of the number of workers.

    Attributes:
        max_queued: the most runs that have waited at once.
    """

    def __init__(
        self,
        max_workers: int,
        expected_memory: Callable[[RunId], int] = lambda _run: 0,
        staffing: StaffingPolicy = StaffingPolicy(),  # noqa: B008 - it is immutable
    ) -> None:
        self._due: list[Action[Reason]] = []
        """What events have made necessary, and was not returned yet."""
        self._runs: ScheduledRuns[Reason] = ScheduledRuns(expected_memory, self._due)
        self._workers = Workers(max_workers)
        self._staffing = Staffing(self._workers, max_workers, staffing)
        self._dispatch = Dispatch(self._runs, self._workers, self._staffing)
        self._broken: Reason | None = None
        """Why no worker can be started, if that is so."""
        self._unanswered: set[WorkerId] = set()
        """The workers from which runs are being taken back."""
        self._start_failures = 0
        self.max_queued = 0

    # What there is to do

    def next_actions(self, now: float) -> list[Action[Reason]]:
        """What there is to do now. Empty: nothing before the next event, or `wakes_at`."""
        due = self._due
        due += self._staffing.dismiss_the_idle(now)
        if self._broken is not None:
            self._runs.fail_waiting(self._broken)
        elif not self._unanswered:
            self._take_back(self._dispatch.take_back_for_the_idle())
            if not self._unanswered:
                due += self._dispatch.give_out(now)
        if not self._unanswered:
            due += self._staffing.adjust(
                now, unfinished=len(self._runs), some_wait=self._runs.some_wait
            )
            reports, wanted = self._dispatch.report_long_runs(now)
            due += reports
            self._take_back(wanted)
        self.max_queued = max(self.max_queued, self.queued)
        actions = due[:]
        due.clear()
        return actions

    def wakes_at(self) -> float | None:
        """The time at which to call `next_actions` if no event comes before; None: never."""
        due = self._staffing.wakes_at()
        for id in self._workers.unreported:
            report_due = self._workers[id].since + SHORT_RUN_S
            return report_due if due is None else min(due, report_due)
        return due

    # What clients want

    def submit(
        self, run: RunId, *, may_go_ahead: bool, priority: int = 0, retries: int = 0
    ) -> None:
        """There is a new run.

        Args:
            run: its id.
            may_go_ahead: whether it is small enough to wait in a busy worker's socket.
            priority: runs with a higher one go first.
            retries: how often it may run again if its worker is lost through no fault of its own.
        """
        self._runs.add(run, ScheduledRun(may_go_ahead, priority, retries))
        if self._broken is None:
            self._staffing.wake()

    def cancel(self, run: RunId) -> None:
        """Nobody wants the run any more. If a worker has begun it, the worker is killed."""
        wanted = self._runs.get(run)
        if wanted is None:
            return
        wanted.is_cancelled = True
        if wanted.worker is None:
            self._runs.cancel_waiting(run)
        else:
            self._take_back([TakeBack(wanted.worker)])

    def warm_up(self) -> None:
        """All workers are to start, and to stay for as long as the policy lets them be idle."""
        if self._broken is not None:
            self._due.append(ReportNoWorkers(self._broken))
        else:
            self._staffing.warm_up()

    def quiesce(self, *, keeps_fork_server: bool) -> None:
        """Let runs end, those that wait included, and then workers and fork server."""
        self._staffing.sleep(keeps_fork_server=keeps_fork_server)

    def reload(self) -> None:
        """No run is to begin in a worker, or with a fork server, that there is now."""
        self._broken = None
        self._start_failures = 0
        self._staffing.replace_all()
        if self._staffing.has_fork_server:
            self._due.append(ReplaceForkServer())
        self._take_back([TakeBack(id) for id in self._workers if self._workers[id].runs])

    # What happens to workers

    def worker_ready(self, worker: WorkerId, now: float) -> None:
        """The worker has started and reads its runs."""
        self._start_failures = 0
        self._workers.said_ready(worker, now)
        self._staffing.worker_ready(now)

    def worker_refused(self, worker: WorkerId, reason: Reason) -> None:
        """`StartWorker` has failed: the machine has no more to give."""
        is_the_only_one = len(self._workers) == 1
        refused = self._remove(worker)
        self._runs.put_back(refused, refused.runs[:])
        if is_the_only_one:
            self._start_failed(reason)
        else:
            self._workers.note_full()

    def worker_crashing(self, worker: WorkerId) -> None:
        """The worker has crashed, and is looked into: `worker_lost` follows before long.

        It gets no more runs. If it had started, another worker has its place meanwhile.
        """
        self._workers.crashed(worker)
        if self._workers[worker].runs:
            self._take_back([TakeBack(worker)])

    def worker_lost(
        self,
        worker: WorkerId,
        unread: Sequence[RunId],
        reason: Reason,
        now: float,
        *,
        is_from_outside: bool = False,
    ) -> None:
        """The worker is dead; what it had finished before has been reported.

        Args:
            worker: its id.
            unread: the runs that it had not begun. They run elsewhere.
            reason: why it is dead. The run that it had begun fails for it.
            now: the time.
            is_from_outside: whether neither the run nor the pool has killed it. Then its run runs
                again if it has retries left.
        """
        lost = self._remove(worker)
        self._runs.put_back(lost, unread)
        for id in lost.runs:
            run = self._runs[id]
            if is_from_outside and run.retries and not run.is_cancelled:
                run.retries -= 1
                self._runs.put_first(id)
            else:
                self._runs.fail(id, reason)
        if failed_to_start(lost):
            self._start_failed(reason)
        elif (
            not (lost.state.is_leaving or lost.runs)
            and lost.state.has_started
            and self._staffing.died_idle(lost, now)
        ):
            self._due.append(ReportNoWorkers(reason))

    def fork_server_lost(
        self,
        unread: Mapping[WorkerId, Sequence[RunId]],
        reason: Reason,
        start_reason: Reason,
        *,
        was_leaving: bool = False,
    ) -> None:
        """A fork server is dead, and so are its workers, through no fault of their runs.

        Args:
            unread: of each of its workers, the runs that it had not begun.
            reason: why, for runs that are lost so for the second time.
            start_reason: why, for runs that wait, if no worker can be started again and again.
            was_leaving: whether no more workers were to come from it.
        """
        for worker in reversed(list(unread)):
            lost = self._remove(worker)
            self._runs.put_back(lost, unread[worker])
            for id in lost.runs:
                run = self._runs[id]
                if run.is_cancelled or run.reruns == MAX_RERUNS:
                    self._runs.fail(id, reason)
                else:
                    run.reruns += 1
                    self._runs.put_first(id)
        if not was_leaving:
            self._start_failed(start_reason)

    def broken(self, reason: Reason) -> None:
        """No worker can be started: runs that none has begun fail, and so do all later ones."""
        if self._broken is None:
            self._broken = reason
            self._staffing.give_up()
            self._due.append(ReportNoWorkers(reason))
        self._take_back([TakeBack(worker) for worker in self._workers.loaded])

    # What happens to runs

    def run_finished(
        self,
        worker: WorkerId,
        run: RunId,
        now: float,
        *,
        is_outgrown: bool = False,
        took_s: float = 0.0,
    ) -> None:
        """The run has ended; the caller reports its result.

        Args:
            worker: where it ran.
            run: its id.
            now: the time.
            is_outgrown: whether the worker takes too much memory, and is to be replaced.
            took_s: the seconds for which it ran, as its worker says.

        Raises:
            ValueError: the worker does not run this run.
        """
        its = self._workers[worker]
        if not its.state.has_started or not its.runs or its.runs[0] != run:
            raise ValueError(f"worker {worker} does not run {run}")
        self._dispatch.run_took(max(took_s, now - its.since))
        del its.runs[0]
        its.served += 1
        self._runs.end(run)
        self._staffing.run_ended(its)
        self._workers.restart_clock(worker, now)
        if is_outgrown:
            self._due += self._staffing.outgrown(worker)

    def taken_back(self, worker: WorkerId, runs: Sequence[RunId], now: float) -> None:
        """The answer to `TakeBack`: these were unread, in the order sent."""
        its = self._workers[worker]
        self._unanswered.discard(worker)
        its.may_hold_unread = False
        self._runs.put_back(its, runs)
        if runs:
            self._workers.gave_back(worker)
        if not its.runs:
            self._workers.restart_clock(worker, now)
        elif self._runs[its.runs[-1]].is_cancelled:
            # The last that was read is the one that runs: the result of one before is on its way.
            self._condemn(worker, its)
        elif its.is_report_due:
            its.is_report_due = False
            self._due.append(ReportStarted(its.runs[0]))

    def over_limit(self, worker: WorkerId, run: RunId) -> bool:
        """The run has gone over a limit: its worker is killed, and `worker_lost` says why.

        Returns:
            False if nothing happens: the worker does not run it any more, or dies anyway.
        """
        its = self._workers[worker]
        if its.state.is_leaving or not its.state.has_started or its.runs[:1] != [run]:
            return False
        self._condemn(worker, its)
        self._take_back([TakeBack(worker)])
        return True

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """There is so much memory.

        Args:
            free: the bytes that runs may still take; negative if they have taken too much.
            used: the bytes that each run takes, as far as they are known.
        """
        self._runs.memory_seen(free, used)

    # Questions

    @property
    def unfinished(self) -> int:
        """The number of runs that have not ended."""
        return len(self._runs)

    @property
    def queued(self) -> int:
        """The number of unfinished runs that have not begun."""
        return max(0, len(self._runs) - self._workers.running)

    @property
    def readiness(self) -> Readiness:
        """Whether the workers have started that were asked for, of which there is one at least."""
        return self._staffing.readiness

    @property
    def runs_are_short(self) -> bool:
        """Whether no run waits, and the last one took little more time than to hand it out."""
        return self._dispatch.ahead == MAX_AHEAD and not self._runs.some_wait

    @property
    def recycled(self) -> int:
        """The number of workers that were replaced after so many runs, or for their memory."""
        return self._staffing.recycled

    @property
    def is_asleep(self) -> bool:
        """Whether the pool has no workers, and waits for a run."""
        return self._staffing.is_asleep and not self._workers

    @property
    def is_short_of_memory(self) -> bool:
        """Whether a run waits that could start if there were more memory; see `memory_seen`."""
        workers = self._workers
        return (
            bool(workers.idle or workers.expected or workers.has_room)
            and workers.may_run_more
            and self._runs.first_lacks_memory
        )

    def activity_of(self, worker: WorkerId) -> str:
        """What the worker does, in the words of `PoolStats.workers`."""
        return self._workers[worker].activity

    def was_dismissed(self, worker: WorkerId) -> bool:
        """Whether the worker was told to exit."""
        return self._workers[worker].state is DISMISSED

    def runs_of(self, worker: WorkerId) -> list[RunId]:
        """The runs that the worker has, in the order sent."""
        return list(self._workers[worker].runs)

    def worker_of(self, run: RunId) -> WorkerId | None:
        """The worker that has the run, which has not ended; None if none has."""
        return self._runs[run].worker

    def first_runs(self) -> dict[WorkerId, RunId]:
        """The first run of each worker that has one."""
        workers = self._workers
        return {id: workers[id].runs[0] for id in workers if workers[id].runs}

    # Parts of events

    def _remove(self, id: WorkerId) -> Worker:
        """Remove a worker, which is dead, and everything that was to be done about it."""
        self._unanswered.discard(id)
        self._due[:] = [
            action
            for action in self._due
            if not (isinstance(action, EndWorker | KillWorker | TakeBack) and action.worker == id)
        ]
        return self._workers.remove(id)

    def _take_back(self, wanted: list[TakeBack]) -> None:
        """Have runs taken back, and give none away before that is done."""
        # What is taken back last is first in the queue: so the oldest worker comes last.
        for action in sorted(wanted, reverse=True):
            if action.worker not in self._unanswered:
                self._unanswered.add(action.worker)
                self._due.append(action)

    def _condemn(self, id: WorkerId, worker: Worker) -> None:
        """Kill a worker for the sake of the run that it has. Once is enough."""
        if worker.state is not CONDEMNED:
            self._workers.condemn(id)
            self._due.append(KillWorker(id))

    def _start_failed(self, reason: Reason) -> None:
        """A worker, or the fork server that would have made it, died while it started."""
        self._start_failures += 1
        if self._start_failures == MAX_START_FAILURES:
            self._start_failures = 0
            self._staffing.give_up()
            self._runs.fail_waiting(reason)
            self._due.append(ReportNoWorkers(reason))
