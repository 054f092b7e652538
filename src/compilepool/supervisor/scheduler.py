"""Which job goes to which worker, and what a death means for the queue.

A pure state machine: events in, actions out, no I/O and no clock. Each event method returns the
actions that its caller must carry out, in order. `TakeBack` is the one with an answer: the event
`taken_back`.

A worker's socket is part of its state: a job can be taken back from it until the worker reads it.
So no worker tells when it starts a job, and yet it is known: the last that cannot be taken back. A
starting worker can have its first job before it is ready, and a busy one its next, and neither can
hold it back: it returns to the queue when somebody is idle, or the job ahead of it is long.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Generic

from compilepool.supervisor.actions import (
    Action,
    Cause,
    FailJob,
    Job,
    KillWorker,
    ReportCancelled,
    ReportStarted,
    SendJob,
    StartWorker,
    TakeBack,
    Worker,
)
from compilepool.supervisor.states import JobState, WorkerState

SHORT_JOB_S = 0.005
"""Seconds. Beyond it a round trip to the supervisor is no part of a job's time worth saving."""

MAX_START_FAILURES = 5
"""So many workers in a row that die while starting fail the jobs that wait for one."""

MAX_RERUNS = 1
"""So often runs a job again whose worker was lost with its fork server."""


class Scheduler(Generic[Cause]):
    """The queue and the workers of one pool.

    Args:
        max_workers: how many workers may exist at once.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._limit = max_workers
        self._jobs: dict[Job, JobState] = {}
        self._queue: OrderedDict[Job, None] = OrderedDict()
        self._workers: dict[Worker, WorkerState] = {}
        self._idle: dict[Worker, None] = {}  # the last in is the first out: its caches are warm
        self._starting: dict[Worker, None] = {}  # those that have a job already
        self._unreported: dict[Worker, None] = {}  # in the order in which their jobs began
        self._crashing: dict[Worker, None] = {}
        self._next_worker = 1
        self._last_was_short = False
        self._start_failures = 0
        self._broken: Cause | None = None

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs)

    def jobs_of(self, worker: Worker) -> list[Job]:
        """The jobs that the worker has, in the order sent."""
        return list(self._workers[worker].jobs)

    def worker_of(self, job: Job) -> Worker | None:
        """The worker that has the job, which has not ended; None if none has."""
        return self._jobs[job].worker

    def next_tick(self) -> float | None:
        """When to call `tick`, on the clock of `now`; None: not before the next event."""
        for worker in self._unreported:
            return self._workers[worker].since + SHORT_JOB_S
        return None

    # Events

    def submit(self, job: Job, now: float, *, may_go_ahead: bool) -> list[Action[Cause]]:
        """A new job. `may_go_ahead`: it is small enough to wait in a busy worker's socket."""
        self._jobs[job] = JobState(may_go_ahead)
        self._queue[job] = None
        return self._dispatch(now)

    def cancel(self, job: Job) -> list[Action[Cause]]:
        """Nobody wants the job any more. If it runs, its worker is killed."""
        state = self._jobs.get(job)
        if state is None:
            return []
        state.is_cancelled = True
        if state.worker is not None:
            return [TakeBack(state.worker)]
        del self._queue[job]
        return [self._end_cancelled(job)]

    def cancel_queued(self) -> list[Action[Cause]]:
        """Nobody wants the jobs that no worker has."""
        jobs, self._queue = self._queue, OrderedDict()
        return [self._end_cancelled(job) for job in jobs]

    def warm_up(self) -> list[Action[Cause]]:
        """Start all workers."""
        actions: list[Action[Cause]] = []
        while self._broken is None and self._has_room:
            actions.append(StartWorker(self._new_worker()))
        return actions

    def worker_ready(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has started and reads its jobs."""
        state = self._workers[worker]
        state.is_ready = True
        self._start_failures = 0
        self._limit = self._max_workers
        self._starting.pop(worker, None)
        self._begin(worker, state, now)
        return self._dispatch(now)

    def job_finished(self, worker: Worker, job: Job, now: float) -> list[Action[Cause]]:
        """The job has ended; the caller reports its result.

        Raises:
            ValueError: the worker does not run this job.
        """
        state = self._workers[worker]
        if not state.is_ready or not state.jobs or state.jobs[0] != job:
            raise ValueError(f"worker {worker} does not run job {job}")
        self._last_was_short = now - state.since < SHORT_JOB_S
        del state.jobs[0]
        del self._jobs[job]
        self._begin(worker, state, now)
        return self._dispatch(now)

    def taken_back(self, worker: Worker, jobs: Sequence[Job], now: float) -> list[Action[Cause]]:
        """The answer to `TakeBack`: these had not been read, in the order sent."""
        state = self._workers[worker]
        self._starting.pop(worker, None)
        actions = self._requeue(state, jobs)
        if not state.jobs:
            if state.is_ready:
                self._begin(worker, state, now)
        elif self._jobs[state.jobs[-1]].is_cancelled:
            # The last that was read is the one that runs: the result of one before is on its way.
            if not state.is_killed:
                state.is_killed = True
                self._retire(worker, state)
                actions.append(KillWorker(worker))
        elif state.is_report_due:
            state.is_report_due = False
            actions.append(ReportStarted(state.jobs[0]))
        return actions + self._dispatch(now)

    def worker_lost(
        self, worker: Worker, unread: Sequence[Job], cause: Cause, now: float
    ) -> list[Action[Cause]]:
        """The worker is dead; what it had finished before has been reported.

        The jobs `unread`, which it had not started, run elsewhere; the one it ran fails of `cause`.
        """
        state = self._forget(worker)
        actions = self._requeue(state, unread)
        actions += [self._end_failed(job, cause) for job in state.jobs]
        if not state.is_ready and not state.is_killed:
            actions += self._start_failed(cause)
        return actions + self._dispatch(now)

    def worker_refused(self, worker: Worker, cause: Cause, now: float) -> list[Action[Cause]]:
        """`StartWorker` has failed: the machine has no more to give."""
        if len(self._workers) == 1:
            return self.worker_lost(worker, self._workers[worker].jobs[:], cause, now)
        state = self._forget(worker)
        actions = self._requeue(state, state.jobs[:])
        self._limit = len(self._workers)  # those that there are will do
        return actions + self._dispatch(now)

    def worker_crashing(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has crashed, and is being looked into: `worker_lost` follows before long.

        It gets no more jobs, and while that takes, another worker has its place.
        """
        state = self._workers[worker]
        self._retire(worker, state)
        if state.is_ready:
            self._crashing[worker] = None
        # What is taken back goes first, so who is next is decided then.
        return [TakeBack(worker)] if state.jobs else self._dispatch(now)

    def fork_server_lost(
        self,
        unread: Mapping[Worker, Sequence[Job]],
        cause: Cause,
        start_cause: Cause,
        now: float,
    ) -> list[Action[Cause]]:
        """The fork server is dead, and so are all workers, through no fault of their jobs.

        Args:
            unread: the jobs that they had not started, for each worker.
            cause: why, for jobs that are lost so for the second time.
            start_cause: why, for jobs that wait, if no worker could be started again and again.
            now: the time.
        """
        actions: list[Action[Cause]] = []
        for worker in reversed(list(self._workers)):
            state = self._forget(worker)
            actions += self._requeue(state, unread[worker])
            for job in state.jobs:
                lost = self._jobs[job]
                if lost.is_cancelled or lost.reruns == MAX_RERUNS:
                    actions.append(self._end_failed(job, cause))
                else:
                    lost.reruns += 1
                    self._put_first(job)
        actions += self._start_failed(start_cause)
        return actions + self._dispatch(now)

    def broken(self, cause: Cause) -> list[Action[Cause]]:
        """No worker can be started, ever: the jobs that no worker has fail, and all later ones."""
        if self._broken is None:
            self._broken = cause
        return [*(TakeBack(worker) for worker in self._starting), *self._fail_queued(self._broken)]

    def tick(self, now: float) -> list[Action[Cause]]:
        """The time of `next_tick` has come."""
        actions: list[Action[Cause]] = []
        while (due := self.next_tick()) is not None and due <= now:
            worker = next(iter(self._unreported))
            del self._unreported[worker]
            state = self._workers[worker]
            if len(state.jobs) > 1:
                state.is_report_due = True
                actions.append(TakeBack(worker))
            else:
                actions.append(ReportStarted(state.jobs[0]))
        return actions

    # Parts of events

    @property
    def _has_room(self) -> bool:
        """Whether there may be another worker: for as many as crash, up to `max_workers` more."""
        return len(self._workers) - min(len(self._crashing), self._max_workers) < self._limit

    def _dispatch(self, now: float) -> list[Action[Cause]]:
        actions: list[Action[Cause]] = []
        if self._broken is not None:
            return self._fail_queued(self._broken)
        if self._idle and self._starting:
            # Somebody is idle while a starting worker holds a job, older than any in the queue.
            return [TakeBack(next(iter(self._starting)))]
        while self._queue and self._idle:
            worker, _ = self._idle.popitem()
            self._send(actions, worker, now)
        while self._queue and self._has_room:
            worker = self._new_worker()
            actions.append(StartWorker(worker))
            self._send(actions, worker, now)
        if self._queue and self._last_was_short:
            for worker in self._unreported:
                if not self._queue or not self._jobs[next(iter(self._queue))].may_go_ahead:
                    break
                if len(self._workers[worker].jobs) == 1:
                    self._send(actions, worker, now)
        return actions

    def _send(self, actions: list[Action[Cause]], worker: Worker, now: float) -> None:
        job, _ = self._queue.popitem(last=False)
        self._jobs[job].worker = worker
        state = self._workers[worker]
        state.jobs.append(job)
        if not state.is_ready:
            self._starting[worker] = None
        elif len(state.jobs) == 1:
            self._begin(worker, state, now)
        actions.append(SendJob(worker, job))

    def _begin(self, worker: Worker, state: WorkerState, now: float) -> None:
        """The worker's first job is another one than before, or there is none."""
        self._unreported.pop(worker, None)
        self._idle.pop(worker, None)
        state.is_report_due = False
        state.since = now
        if state.is_retired:
            return
        if state.jobs:
            self._unreported[worker] = None
        else:
            self._idle[worker] = None

    def _retire(self, worker: Worker, state: WorkerState) -> None:
        state.is_retired = True
        for index in (self._idle, self._starting, self._unreported):
            index.pop(worker, None)

    def _requeue(self, state: WorkerState, jobs: Sequence[Job]) -> list[Action[Cause]]:
        actions: list[Action[Cause]] = []
        for job in reversed(jobs):
            state.jobs.remove(job)
            if self._jobs[job].is_cancelled:
                actions.append(self._end_cancelled(job))
            else:
                self._put_first(job)
        return actions

    def _put_first(self, job: Job) -> None:
        self._jobs[job].worker = None
        self._queue[job] = None
        self._queue.move_to_end(job, last=False)

    def _forget(self, worker: Worker) -> WorkerState:
        for index in (self._idle, self._starting, self._unreported, self._crashing):
            index.pop(worker, None)
        return self._workers.pop(worker)

    def _start_failed(self, cause: Cause) -> list[Action[Cause]]:
        """A worker, or the fork server that would have made it, died while starting."""
        self._start_failures += 1
        if self._start_failures < MAX_START_FAILURES:
            return []
        self._start_failures = 0
        return self._fail_queued(cause)

    def _new_worker(self) -> Worker:
        worker = self._next_worker
        self._next_worker += 1
        self._workers[worker] = WorkerState()
        return worker

    def _end_failed(self, job: Job, cause: Cause) -> Action[Cause]:
        if self._jobs[job].is_cancelled:
            return self._end_cancelled(job)
        del self._jobs[job]
        return FailJob(job, cause)

    def _end_cancelled(self, job: Job) -> ReportCancelled:
        del self._jobs[job]
        return ReportCancelled(job)

    def _fail_queued(self, cause: Cause) -> list[Action[Cause]]:
        jobs, self._queue = self._queue, OrderedDict()
        return [self._end_failed(job, cause) for job in jobs]
