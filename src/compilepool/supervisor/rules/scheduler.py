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

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    Cause,
    Job,
    KillWorker,
    ReportNoWorkers,
    ReportStarted,
    TakeBack,
    Worker,
)
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_JOB_S, Dispatch
from compilepool.supervisor.rules.queue import JobTable
from compilepool.supervisor.rules.staffing import Staffing, StaffingPolicy
from compilepool.supervisor.rules.states import JobState, WorkerState
from compilepool.supervisor.rules.workers import Roster
from compilepool.wire.messages import Readiness

MAX_START_FAILURES = 5
"""So many workers in a row that die while starting fail the jobs that wait for one."""

MAX_RERUNS = 1
"""So often runs a job again whose worker was lost with its fork server."""


class Scheduler(Generic[Cause]):
    """The queue and the workers of one pool.

    Args:
        max_workers: how many workers may have jobs at once.
        expected_memory: how many bytes of memory a job will probably take, asked when it is next.
        staffing: how many workers there are to be.
    """

    def __init__(
        self,
        max_workers: int,
        expected_memory: Callable[[Job], int] = lambda _job: 0,
        staffing: StaffingPolicy = StaffingPolicy(),  # noqa: B008 - it is immutable
    ) -> None:
        self._jobs: JobTable[Cause] = JobTable(expected_memory)
        self._workers = Roster(max_workers)
        self._staffing = Staffing(self._workers, max_workers, staffing)
        self.max_queued = 0
        """The most jobs that have waited at once."""
        self._start_failures = 0
        self._awaited: set[Worker] = set()
        """Those from which jobs are being taken back, all of them before any is given away."""
        self._dispatch = Dispatch(self._jobs, self._workers, self._staffing)

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return len(self._jobs)

    @property
    def queued(self) -> int:
        """How many of those have not begun."""
        return max(0, len(self._jobs) - self._workers.busy)

    @property
    def readiness(self) -> Readiness:
        """Whether the workers have started that were asked for, of which there is one at least."""
        return self._staffing.readiness

    @property
    def jobs_are_short(self) -> bool:
        """Whether none waits, and the last one took little more time than to hand it out."""
        return self._dispatch.ahead == MAX_AHEAD and not self._jobs.some_wait

    @property
    def recycled(self) -> int:
        """How many workers were replaced after so many jobs, or for their memory."""
        return self._staffing.recycled

    @property
    def is_asleep(self) -> bool:
        """Whether the pool has no workers, and waits for a job."""
        return self._staffing.is_asleep and not self._workers

    def state_of(self, worker: Worker) -> str:
        """What a worker does: "starting", "idle", "busy" or "leaving"."""
        state = self._workers[worker]
        if state.is_retired:
            return "leaving"
        if not state.is_ready:
            return "starting"
        return "busy" if state.jobs else "idle"

    def was_dismissed(self, worker: Worker) -> bool:
        """Whether the worker was to exit in order."""
        return self._workers[worker].is_dismissed

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
        due = self._staffing.next_tick()
        for worker in self._workers.unreported:
            report_due = self._workers[worker].since + SHORT_JOB_S
            return report_due if due is None else min(due, report_due)
        return due

    # Events

    def submit(self, job: Job, *, may_go_ahead: bool, priority: int = 0, retries: int = 0) -> None:
        """A new job; `settle` must follow.

        Args:
            job: its number.
            may_go_ahead: whether it is small enough to wait in a busy worker's socket.
            priority: those with a higher one go first.
            retries: how often it may run again when its worker is lost through no fault of its.
        """
        self._jobs.add(job, JobState(may_go_ahead, priority, retries))
        if self._dispatch.broken is None:
            self._staffing.wake()

    def settle(self, now: float) -> list[Action[Cause]]:
        """After one `submit` or `job_finished`, or several: who gets which job."""
        actions = self._dispatch.next_actions(now)
        self.max_queued = max(self.max_queued, self.queued)
        return actions + self._dispatch.share_out()

    def cancel(self, job: Job, now: float) -> list[Action[Cause]]:
        """Nobody wants the job any more. If it runs, its worker is killed."""
        state = self._jobs.get(job)
        if state is None:
            return []
        state.is_cancelled = True
        if state.worker is not None:
            return [TakeBack(state.worker)]
        return [self._jobs.cancel(job), *self._dispatch.next_actions(now)]

    def cancel_queued(self, now: float) -> list[Action[Cause]]:
        """Nobody wants the jobs that no worker has."""
        return [*self._jobs.cancel_waiting(), *self._dispatch.next_actions(now)]

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
        return self._dispatch.next_actions(now)

    def warm_up(self, now: float) -> list[Action[Cause]]:
        """Start all workers, and keep them for as long as the policy lets them be idle."""
        if self._dispatch.broken is not None:
            return [ReportNoWorkers(self._dispatch.broken)]
        self._staffing.warm_up(now)
        return self._dispatch.next_actions(now)

    def quiesce(self, now: float, *, keeps_fork_server: bool) -> list[Action[Cause]]:
        """Let jobs end, those that wait included, and then workers and fork server."""
        self._staffing.sleep(keeps_fork_server=keeps_fork_server)
        return self._dispatch.next_actions(now)

    def reload(self, now: float) -> list[Action[Cause]]:
        """No job is to begin in a worker, or with a fork server, that there is now."""
        self._dispatch.broken = None
        self._start_failures = 0
        actions = self._staffing.replace_all()
        self._awaited = {worker for worker in self._workers if self._workers[worker].jobs}
        # What is taken back last is first in the queue.
        actions += [TakeBack(worker) for worker in sorted(self._awaited, reverse=True)]
        return actions if self._awaited else actions + self._dispatch.next_actions(now)

    def worker_ready(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has started and reads its jobs."""
        self._start_failures = 0
        self._workers.started(worker, now)
        self._staffing.worker_ready(now)
        return self._dispatch.next_actions(now)

    def job_finished(
        self,
        worker: Worker,
        job: Job,
        now: float,
        *,
        is_outgrown: bool = False,
        took_s: float = 0.0,
    ) -> list[Action[Cause]]:
        """The job has ended; the caller reports its result. `settle` must follow.

        Args:
            worker: where it ran.
            job: its number.
            now: the time.
            is_outgrown: whether the worker takes too much memory, and is to be replaced.
            took_s: for how long it ran, as its worker says.

        Raises:
            ValueError: the worker does not run this job.
        """
        state = self._workers[worker]
        if not state.is_ready or not state.jobs or state.jobs[0] != job:
            raise ValueError(f"worker {worker} does not run job {job}")
        self._dispatch.job_took(max(took_s, now - state.since))
        del state.jobs[0]
        state.served += 1
        self._jobs.finish(job)
        self._staffing.job_ended(state)
        self._workers.begin(worker, now)
        return self._staffing.has_outgrown(worker) if is_outgrown else []

    def taken_back(self, worker: Worker, jobs: Sequence[Job], now: float) -> list[Action[Cause]]:
        """The answer to `TakeBack`: these had not been read, in the order sent."""
        state = self._workers[worker]
        self._workers.starting.pop(worker, None)
        actions = self._jobs.take_back(state, jobs)
        if jobs:
            self._staffing.jobs_taken_back(worker)
        if not state.jobs:
            self._workers.begin(worker, now)
        elif self._jobs[state.jobs[-1]].is_cancelled:
            # The last that was read is the one that runs: the result of one before is on its way.
            actions += self._kill(worker, state)
        elif state.is_report_due:
            state.is_report_due = False
            actions.append(ReportStarted(state.jobs[0]))
        self._awaited.discard(worker)
        return actions if self._awaited else actions + self._dispatch.next_actions(now)

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
        if not (state.is_ready or state.is_killed or state.is_dismissed):
            actions += self._start_failed(cause)
        elif not (state.is_retired or state.jobs) and self._staffing.has_died_idle(
            state.served, now - state.since
        ):
            actions.append(ReportNoWorkers(cause))
        return actions + self._dispatch.next_actions(now)

    def worker_refused(self, worker: Worker, cause: Cause, now: float) -> list[Action[Cause]]:
        """`StartWorker` has failed: the machine has no more to give."""
        if len(self._workers) == 1:
            return self.worker_lost(worker, self._workers[worker].jobs[:], cause, now)
        state = self._workers.remove(worker)
        actions = self._jobs.take_back(state, state.jobs[:])
        self._workers.is_full()
        return actions + self._dispatch.next_actions(now)

    def worker_crashing(self, worker: Worker, now: float) -> list[Action[Cause]]:
        """The worker has crashed, and is being looked into: `worker_lost` follows before long.

        It gets no more jobs, and while that takes, another worker has its place.
        """
        self._workers.retire(worker)
        # What is taken back goes first, so who is next is decided then.
        return (
            [TakeBack(worker)] if self._workers[worker].jobs else self._dispatch.next_actions(now)
        )

    def fork_server_lost(
        self,
        unread: Mapping[Worker, Sequence[Job]],
        cause: Cause,
        start_cause: Cause,
        now: float,
        *,
        was_leaving: bool = False,
    ) -> list[Action[Cause]]:
        """A fork server is dead, and so are its workers, through no fault of their jobs.

        Args:
            unread: the jobs that they had not started, for each of them.
            cause: why, for jobs that are lost so for the second time.
            start_cause: why, for jobs that wait, if no worker could be started again and again.
            now: the time.
            was_leaving: whether no more workers were to come from it.
        """
        actions: list[Action[Cause]] = []
        for worker in reversed(list(unread)):
            state = self._workers.remove(worker)
            actions += self._jobs.take_back(state, unread[worker])
            for job in state.jobs:
                lost = self._jobs[job]
                if lost.is_cancelled or lost.reruns == MAX_RERUNS:
                    actions.append(self._jobs.fail(job, cause))
                else:
                    lost.reruns += 1
                    self._jobs.run_again(job)
        if not was_leaving:
            actions += self._start_failed(start_cause)
        return actions + self._dispatch.next_actions(now)

    def broken(self, cause: Cause) -> list[Action[Cause]]:
        """No worker can be started, ever: the jobs that no worker has fail, and all later ones."""
        actions: list[Action[Cause]] = []
        if self._dispatch.broken is None:
            self._dispatch.broken = cause
            self._staffing.give_up()
            actions.append(ReportNoWorkers(cause))
        actions += [TakeBack(worker) for worker in self._workers.starting]
        return actions + self._jobs.fail_waiting(self._dispatch.broken)

    def tick(self, now: float) -> list[Action[Cause]]:
        """The time of `next_tick` has come."""
        idle_due = self._staffing.next_tick()
        if idle_due is not None and idle_due <= now:
            actions = [*self._staffing.tick(now), *self._dispatch.next_actions(now)]
        else:
            actions = []
        for worker in list(self._workers.unreported):
            state = self._workers[worker]
            if state.since + SHORT_JOB_S > now:
                break
            del self._workers.unreported[worker]
            if len(state.jobs) > 1:
                state.is_report_due = True
                actions.append(TakeBack(worker))
            else:
                actions.append(ReportStarted(state.jobs[0]))
        return actions

    # Parts of events

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
        self._staffing.give_up()
        return [*self._jobs.fail_waiting(cause), ReportNoWorkers(cause)]
