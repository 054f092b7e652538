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

from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from compilepool.supervisor.actions import (
    Action,
    Cause,
    Job,
    KillWorker,
    ReportStarted,
    SendJob,
    StartWorker,
    TakeBack,
    Worker,
)
from compilepool.supervisor.job_table import JobTable
from compilepool.supervisor.roster import Roster
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
        expected_memory: how many bytes of memory a job will probably take, asked when it is next.
    """

    def __init__(
        self, max_workers: int, expected_memory: Callable[[Job], int] = lambda _job: 0
    ) -> None:
        self._jobs: JobTable[Cause] = JobTable(expected_memory)
        self._workers = Roster(max_workers)
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

    def running(self) -> dict[Worker, Job]:
        """The first job of each worker that has one."""
        return {
            worker: self._workers[worker].jobs[0]
            for worker in self._workers
            if self._workers[worker].jobs
        }

    def attempts_of(self, job: Job) -> int:
        """How often the job, which has not ended, was begun."""
        return self._jobs[job].attempts

    @property
    def is_short_of_memory(self) -> bool:
        """Whether a job waits that could run if there were more memory; see `memory_seen`."""
        return self._jobs.is_short_of_memory

    def next_tick(self) -> float | None:
        """When to call `tick`, on the clock of `now`; None: not before the next event."""
        for worker in self._workers.unreported:
            return self._workers[worker].since + SHORT_JOB_S
        return None

    # Events

    def submit(
        self, job: Job, now: float, *, may_go_ahead: bool, priority: int = 0, retries: int = 0
    ) -> list[Action[Cause]]:
        """A new job.

        Args:
            job: its number.
            now: the time.
            may_go_ahead: whether it is small enough to wait in a busy worker's socket.
            priority: those with a higher one go first.
            retries: how often it may run again when its worker is lost through no fault of its.
        """
        self._jobs.add(job, JobState(may_go_ahead, priority, retries))
        return self._dispatch(now)

    def cancel(self, job: Job) -> list[Action[Cause]]:
        """Nobody wants the job any more. If it runs, its worker is killed."""
        state = self._jobs.get(job)
        if state is None:
            return []
        state.is_cancelled = True
        if state.worker is not None:
            return [TakeBack(state.worker)]
        return [self._jobs.cancel(job)]

    def cancel_queued(self) -> list[Action[Cause]]:
        """Nobody wants the jobs that no worker has."""
        return self._jobs.cancel_waiting()

    def over_limit(self, worker: Worker, job: Job) -> list[Action[Cause]]:
        """The job has gone over a limit: its worker is killed, and `worker_lost` says why.

        Nothing happens if the worker does not run it any more, or is about to die anyway.
        """
        state = self._workers[worker]
        if state.is_retired or not state.is_ready or state.jobs[:1] != [job]:
            return []
        return [*self._kill(worker, state), TakeBack(worker)]

    def memory_seen(self, free: int, used: Mapping[Job, int], now: float) -> list[Action[Cause]]:
        """How much memory there is.

        Args:
            free: bytes that jobs may still take; negative if they have taken too much.
            used: the bytes that jobs take, those of them that are known.
            now: the time.
        """
        self._jobs.memory_seen(free, used)
        return self._dispatch(now)

    def warm_up(self) -> list[Action[Cause]]:
        """Start all workers."""
        actions: list[Action[Cause]] = []
        while self._broken is None and self._workers.has_room:
            actions.append(StartWorker(self._workers.add()))
        return actions

    def worker_ready(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has started and reads its jobs."""
        self._start_failures = 0
        self._workers.started(worker, now)
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
        self._jobs.finish(job)
        self._workers.begin(worker, now)
        return self._dispatch(now)

    def taken_back(self, worker: Worker, jobs: Sequence[Job], now: float) -> list[Action[Cause]]:
        """The answer to `TakeBack`: these had not been read, in the order sent."""
        state = self._workers[worker]
        self._workers.starting.pop(worker, None)
        actions = self._jobs.take_back(state, jobs)
        if not state.jobs:
            if state.is_ready:
                self._workers.begin(worker, now)
        elif self._jobs[state.jobs[-1]].is_cancelled:
            # The last that was read is the one that runs: the result of one before is on its way.
            actions += self._kill(worker, state)
        elif state.is_report_due:
            state.is_report_due = False
            actions.append(ReportStarted(state.jobs[0]))
        return actions + self._dispatch(now)

    def worker_lost(
        self,
        worker: Worker,
        unread: Sequence[Job],
        cause: Cause,
        now: float,
        *,
        is_from_outside: bool = False,
    ) -> list[Action[Cause]]:
        """The worker is dead; what it had finished before has been reported.

        The jobs `unread`, which it had not started, run elsewhere; the one it ran fails of `cause`,
        or runs again if that came from outside and it has retries left.
        """
        state = self._workers.remove(worker)
        actions = self._jobs.take_back(state, unread)
        for job in state.jobs:
            lost = self._jobs[job]
            if is_from_outside and lost.retries and not lost.is_cancelled:
                lost.retries -= 1
                self._jobs.run_again(job)
            else:
                actions.append(self._jobs.fail(job, cause))
        if not state.is_ready and not state.is_killed:
            actions += self._start_failed(cause)
        return actions + self._dispatch(now)

    def worker_refused(self, worker: Worker, cause: Cause, now: float) -> list[Action[Cause]]:
        """`StartWorker` has failed: the machine has no more to give."""
        if len(self._workers) == 1:
            return self.worker_lost(worker, self._workers[worker].jobs[:], cause, now)
        state = self._workers.remove(worker)
        actions = self._jobs.take_back(state, state.jobs[:])
        self._workers.is_full()
        return actions + self._dispatch(now)

    def worker_crashing(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has crashed, and is being looked into: `worker_lost` follows before long.

        It gets no more jobs, and while that takes, another worker has its place.
        """
        self._workers.retire(worker)
        # What is taken back goes first, so who is next is decided then.
        return [TakeBack(worker)] if self._workers[worker].jobs else self._dispatch(now)

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
            state = self._workers.remove(worker)
            actions += self._jobs.take_back(state, unread[worker])
            for job in state.jobs:
                lost = self._jobs[job]
                if lost.is_cancelled or lost.reruns == MAX_RERUNS:
                    actions.append(self._jobs.fail(job, cause))
                else:
                    lost.reruns += 1
                    self._jobs.run_again(job)
        actions += self._start_failed(start_cause)
        return actions + self._dispatch(now)

    def broken(self, cause: Cause) -> list[Action[Cause]]:
        """No worker can be started, ever: the jobs that no worker has fail, and all later ones."""
        if self._broken is None:
            self._broken = cause
        return [
            *(TakeBack(worker) for worker in self._workers.starting),
            *self._jobs.fail_waiting(self._broken),
        ]

    def tick(self, now: float) -> list[Action[Cause]]:
        """The time of `next_tick` has come."""
        actions: list[Action[Cause]] = []
        while (due := self.next_tick()) is not None and due <= now:
            worker = next(iter(self._workers.unreported))
            del self._workers.unreported[worker]
            state = self._workers[worker]
            if len(state.jobs) > 1:
                state.is_report_due = True
                actions.append(TakeBack(worker))
            else:
                actions.append(ReportStarted(state.jobs[0]))
        return actions

    # Parts of events

    def _dispatch(self, now: float) -> list[Action[Cause]]:
        actions: list[Action[Cause]] = []
        if self._broken is not None:
            return self._jobs.fail_waiting(self._broken)
        workers = self._workers
        self._jobs.ask_anew()
        if workers.idle and workers.starting:
            # Somebody is idle while a starting worker holds a job, older than any in the queue.
            return [TakeBack(next(iter(workers.starting)))]
        while workers.idle and self._jobs.next():
            worker, _ = workers.idle.popitem()
            self._send(actions, worker, now)
        while workers.has_room and self._jobs.next():
            worker = workers.add()
            actions.append(StartWorker(worker))
            self._send(actions, worker, now)
        if self._jobs.some_wait and self._last_was_short:
            for worker in workers.unreported:
                if len(workers[worker].jobs) > 1:
                    continue
                job = self._jobs.next()
                if job is None or not job.may_go_ahead:
                    break
                self._send(actions, worker, now)
        return actions

    def _send(self, actions: list[Action[Cause]], worker: Worker, now: float) -> None:
        job = self._jobs.take(worker)
        state = self._workers[worker]
        state.jobs.append(job)
        if not state.is_ready:
            self._workers.starting[worker] = None
        elif len(state.jobs) == 1:
            self._workers.begin(worker, now)
        actions.append(SendJob(worker, job))

    def _kill(self, worker: Worker, state: WorkerState) -> list[Action[Cause]]:
        """It is to die for the job that it runs. Once is enough."""
        if state.is_killed:
            return []
        state.is_killed = True
        self._workers.retire(worker)
        return [KillWorker(worker)]

    def _start_failed(self, cause: Cause) -> list[Action[Cause]]:
        """A worker, or the fork server that would have made it, died while starting."""
        self._start_failures += 1
        if self._start_failures < MAX_START_FAILURES:
            return []
        self._start_failures = 0
        return self._jobs.fail_waiting(cause)
