"""Decides which run goes to which worker, and what happens to runs whose worker dies.

The scheduler is a state machine with no I/O and no clock. An event only changes the state, which
includes what it decides: that a worker must be killed, or that a run has failed. `next_actions`
then says what to do. The caller carries out the actions in order. If it calls `taken_back` or
`worker_refused` meanwhile, it asks for the next actions again.

The supervisor can take a run back from a worker's socket until the worker reads it. Workers never
announce that they begin a run: the run that a worker has begun is the last one that cannot be taken
back. So a starting worker can have its first run before it is ready, and a busy worker can have its
next runs. Neither delays a run: the run returns to the queue when another worker is idle, or when
the run ahead of it turns out to be long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compilepool.supervisor.rules.actions import (
    Action,
    KillWorker,
    Reason,
    ReplaceForkServer,
    ReportNoWorkers,
    ReportStarted,
    RunId,
    TakeBack,
    WorkerId,
    is_void_without,
)
from compilepool.supervisor.rules.dispatch import SHORT_RUN_S
from compilepool.supervisor.rules.queue import ScheduledRun
from compilepool.supervisor.rules.scheduler_state import SchedulerState
from compilepool.supervisor.rules.states import CONDEMNED, READY
from compilepool.supervisor.rules.workers import Worker


class Scheduler(SchedulerState[Reason]):
    """The queue and the workers of one pool. For the arguments see `SchedulerState`."""

    # Actions

    def next_actions(self, now: float) -> list[Action[Reason]]:
        """The actions to carry out now. There are no more before an event or `wakes_at`."""
        if self._broken is not None:
            self._runs.fail_waiting(self._broken)
        while not self._unanswered and self._give_out_and_adjust(now):
            pass
        if not self._unanswered:
            reports, wanted = self._dispatch.report_long_runs(now)
            self._due += reports
            self._take_back(wanted)
        self.max_queued = max(self.max_queued, self.queued)
        actions = self._due[:]
        self._due.clear()
        return actions

    def _give_out_and_adjust(self, now: float) -> bool:
        """Returns whether there may be more to give out, because workers have come or gone.

        A worker that gets its last run makes room for another one.
        """
        makes_room = False
        if self._broken is None:
            self._take_back(self._dispatch.take_back_for_idle())
            if self._unanswered:
                return False
            given = self._dispatch.give_out(now)
            self._due += given
            makes_room = bool(given) and self._staffing.limits_runs
        changes = self._staffing.adjust(now, self._runs)
        self._due += changes
        return makes_room or bool(changes)

    def wakes_at(self) -> float | None:
        """The time to call `next_actions` if no event comes before; None means never."""
        due = self._staffing.wakes_at()
        for id in self._workers.unreported:
            report_due = self._workers[id].since + SHORT_RUN_S
            return report_due if due is None else min(due, report_due)
        return due

    # Requests of clients

    def submit(
        self,
        run: RunId,
        *,
        may_go_ahead: bool,
        priority: int = 0,
        retries: int = 0,
        client: int = 0,
    ) -> None:
        """Add a new run to the queue.

        Args:
            run: the run's id.
            may_go_ahead: whether the run is small enough to wait in a busy worker's socket.
            priority: the priority; runs with a higher one start first.
            retries: how often the run may run again after its worker died through no fault of it.
            client: the number of the client. Clients take turns.
        """
        self._runs.add(run, ScheduledRun(may_go_ahead, priority, retries, client))
        if self._broken is None:
            self._staffing.wake()

    def join(self, run: RunId, *, client: int, priority: int = 0) -> bool:
        """Another job wants a run, which is not cancelled.

        Args:
            run: the run's id.
            client: the number of the job's client. Its turn may start the run, too.
            priority: the job's priority. The run gets it if it is higher than the run's.

        Returns:
            False if the run has ended, even if the next actions have yet to report that.
        """
        if self._runs.get(run) is None:
            return False
        self._runs.join(run, client, priority)
        if self._broken is None:
            self._staffing.wake()
        return True

    def cancel(self, run: RunId) -> None:
        """End a run that nobody wants any more. If a worker has begun it, kill the worker."""
        wanted = self._runs.get(run)
        if wanted is None:
            return
        wanted.is_cancelled = True
        if wanted.worker is None:
            self._runs.cancel_waiting(run)
        else:
            self._take_back([wanted.worker])

    def raise_limit(self, max_workers: int) -> None:
        """Allow more workers, because a client has come that brings CPUs of its own.

        A lower number changes nothing: the others still count on what they have.
        """
        self._workers.raise_limit(max_workers)
        self._staffing.raise_limit(max_workers)

    def warm_up(self, now: float) -> None:
        """Start all workers. They stay for as long as the policy lets them be idle, from now on."""
        if self._broken is not None:
            self._due.append(ReportNoWorkers(self._broken))
        else:
            self._staffing.warm_up(now)

    def quiesce(self, *, keeps_fork_server: bool) -> None:
        """Let all runs end, including waiting ones, and then workers and fork server."""
        self._staffing.sleep(keeps_fork_server=keeps_fork_server)

    def reload(self) -> None:
        """Begin no run in the current workers, and replace the fork server."""
        self._broken = None
        self.replace_workers()
        if self._staffing.has_fork_server:
            self._due.append(ReplaceForkServer())

    def replace_workers(self) -> None:
        """Begin no run in the current workers."""
        self._staffing.replace_all()
        self._take_back(id for id in self._workers if self._workers[id].runs)

    # Events of workers

    def worker_ready(self, worker: WorkerId, now: float) -> None:
        """The worker has started and reads its runs."""
        self._workers.said_ready(worker, now)
        self._staffing.worker_ready(now)

    def worker_refused(self, worker: WorkerId, reason: Reason) -> None:
        """`StartWorker` has failed: the machine allows no more workers."""
        refused = self._remove(worker)
        self._runs.put_back(refused, refused.runs[:])
        if self._workers:
            self._workers.note_full()
        else:
            self._start_failed(reason)

    def worker_crashing(self, worker: WorkerId) -> None:
        """The worker has crashed, and is being inspected. `worker_lost` follows within a bound.

        It gets no more runs. If it had started, another worker takes its place already.
        """
        self._workers.crashed(worker)
        if self._workers[worker].runs:
            self._take_back([worker])

    def worker_lost(
        self,
        worker: WorkerId,
        unread: Sequence[RunId],
        reason: Reason,
        now: float,
        *,
        is_innocent: bool = False,
    ) -> None:
        """The worker is dead. `run_finished` was called for each run that it had finished.

        Args:
            worker: the worker's id.
            unread: the runs that the worker had not begun. They run elsewhere.
            reason: why the worker is dead. The run that it had begun fails for this reason.
            now: the time.
            is_innocent: whether neither the run nor the pool has killed the worker, as far as that
                is known. Then the run runs again if it has retries left.
        """
        lost = self._remove(worker)
        self._runs.put_back(lost, unread)
        for id in lost.runs:
            if is_innocent:
                self._runs.retry_or_fail(id, reason)
            else:
                self._runs.fail(id, reason)
        if lost.has_failed_to_start:
            self._start_failed(reason)
        elif self._staffing.worker_died(lost, now):
            self._due.append(ReportNoWorkers(reason))

    def fork_server_lost(
        self,
        unread: Mapping[WorkerId, Sequence[RunId]],
        reason: Reason,
        start_reason: Reason,
        *,
        was_leaving: bool = False,
    ) -> None:
        """A fork server and its workers are dead, through no fault of the runs.

        Args:
            unread: for each of its workers, the runs that the worker had not begun.
            reason: why a run fails that is lost with its fork server once too often.
            start_reason: why waiting runs fail if workers fail to start again and again.
            was_leaving: whether the fork server was about to exit, and started no more workers.
        """
        for worker in reversed(list(unread)):
            lost = self._remove(worker)
            self._runs.put_back(lost, unread[worker])
            for id in lost.runs:
                self._runs.rerun_or_fail(id, reason)
        self._staffing.workers_lost()
        if not was_leaving:
            self._start_failed(start_reason)

    def broken(self, reason: Reason) -> None:
        """No worker can be started. All runs that no worker has begun fail, and all later runs."""
        if self._broken is None:
            self._broken = reason
            self._staffing.give_up()
            self._due.append(ReportNoWorkers(reason))
        self._take_back(self._workers.loaded)

    # Events of runs

    def run_finished(
        self,
        worker: WorkerId,
        run: RunId,
        now: float,
        *,
        took_s: float = 0.0,
    ) -> None:
        """The run has ended. The caller passes on its result.

        Args:
            worker: the worker that ran it.
            run: the run's id.
            now: the time.
            took_s: the seconds that the run took, as measured by the worker.

        Raises:
            ValueError: this is not the worker's first run, or the worker has not started.
        """
        record = self._workers[worker]
        if not record.state.has_started or not record.runs or record.runs[0] != run:
            raise ValueError(f"worker {worker} does not run {run}")
        self._dispatch.run_took(max(took_s, now - record.since))
        del record.runs[0]
        record.served += 1
        self._runs.end(run)
        self._staffing.run_ended(record)
        self._workers.restart_clock(worker, now)

    def not_begun(self, worker: WorkerId) -> None:
        """`ReportStarted` has come too early. The worker may still tear down what another run left.

        If so, its runs run elsewhere, if there is a worker for them.
        """
        self._workers[worker].is_report_due = True
        self._take_back([worker])

    def torn_down(self, worker: WorkerId, now: float, *, is_outgrown: bool = False) -> None:
        """The worker has torn down what its last run has left, and is ready for the next.

        The workers tell only if that took long, or if they are outgrown.

        Args:
            worker: the worker's id.
            now: the time.
            is_outgrown: whether the worker takes too much memory, and must be replaced.
        """
        self._workers.has_torn_down(worker, now)
        if is_outgrown:
            self._due += self._staffing.outgrown(worker)

    def taken_back(
        self,
        worker: WorkerId,
        runs: Sequence[RunId],
        now: float,
        *,
        is_tearing_down: bool = False,
    ) -> None:
        """`TakeBack` was carried out.

        Args:
            worker: the worker's id.
            runs: the runs that were unread, in the order sent.
            now: the time.
            is_tearing_down: whether the worker has not read them because it tears down what its
                last run has left. It gets no runs until `torn_down` is called.
        """
        record = self._workers[worker]
        self._unanswered.discard(worker)
        record.may_hold_unread = False
        self._runs.put_back(record, runs)
        if runs:
            self._workers.gave_back(worker)
        if not record.runs:
            self._workers.restart_clock(worker, now)
            if is_tearing_down and record.state is READY:
                self._workers.tears_down(worker, now)
        elif self._runs[record.runs[-1]].is_cancelled:
            # The worker has begun the last run that it has read. It has finished the runs before.
            self._condemn(worker, record)
        elif record.is_report_due:
            record.is_report_due = False
            self._due.append(ReportStarted(record.runs[0], is_read=True))

    def over_limit(self, worker: WorkerId, run: RunId) -> bool:
        """The run has exceeded a limit. Kill its worker; `worker_lost` then says why.

        Returns:
            False if nothing happens, because the run has ended or the worker dies anyway.
        """
        record = self._workers[worker]
        if record.state.is_leaving or not record.state.has_started or record.runs[:1] != [run]:
            return False
        self._condemn(worker, record)
        self._take_back([worker])
        return True

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """Note a measurement of memory, see `Claims.memory_seen`."""
        self._runs.memory_seen(free, used)

    # Parts of events

    def _remove(self, id: WorkerId) -> Worker:
        """Remove a worker, which is dead, and the actions that are due for it."""
        self._unanswered.discard(id)
        self._due[:] = [action for action in self._due if not is_void_without(id, action)]
        return self._workers.remove(id)

    def _take_back(self, workers: Iterable[WorkerId]) -> None:
        """Take runs back from these workers, and give out none until that is done."""
        # The runs that are taken back last come first in the queue, so the oldest worker is last.
        for worker in sorted(workers, reverse=True):
            if worker not in self._unanswered:
                self._unanswered.add(worker)
                self._due.append(TakeBack(worker))

    def _condemn(self, id: WorkerId, worker: Worker) -> None:
        """Kill a worker, unless that was done, because its current run must end."""
        if worker.state is not CONDEMNED:
            self._workers.condemn(id)
            self._due.append(KillWorker(id))

    def _start_failed(self, reason: Reason) -> None:
        """A worker, or the fork server that would have started it, has died while starting."""
        if self._staffing.start_failed():
            self._runs.fail_waiting(reason)
            self._due.append(ReportNoWorkers(reason))
