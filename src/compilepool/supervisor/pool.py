"""One pool: between its client, the scheduler that decides, and the crew that works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

from compilepool.light_typing import NamedTuple
from compilepool.linux.process import give_back_memory
from compilepool.supervisor.answers import Dumps, Tally
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.crew.fork_server_start import ForkServerStarter
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.rules import actions as todo
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.rules.staffing import StaffingPolicy
from compilepool.supervisor.runs import Run
from compilepool.supervisor.watch import free_memory as memory_room
from compilepool.supervisor.watch.deaths import not_started, without_worker
from compilepool.supervisor.watch.free_memory import MemoryRoom
from compilepool.wire.channel import refuse
from compilepool.wire.failure import Failure
from compilepool.wire.messages import (
    HAS_OUTPUT,
    Kind,
    Level,
    Message,
    ProtocolError,
    Readiness,
    log_message,
)
from compilepool.wire.payloads import Payload, check_payload, lacks_descriptor
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import JobTerms, env_as_json
from compilepool.wire.usage import NO_USAGE, replace_usage, result_message, usage_of

_AHEAD_LIMIT = 8 * 1024  # bytes; as many jobs as may go ahead always fit a send buffer
_SEND_AGAIN_S = 0.005
_SPIN_S = 0.0001  # to wake up a process that sleeps takes 20 to 50 us, twice for each job


class _InitializerFailed(NamedTuple):
    outcome: int
    payload: Payload


_Why = Failure | _InitializerFailed


class Pool:
    """Jobs have numbers of the pool's own, so that clients need not agree.

    Args:
        loop: the event loop.
        client: who is told what happens.
        config: the pool's configuration.
        startup_fds: what every worker starts with.
        starter: starts the fork servers.
    """

    def __init__(
        self,
        loop: Loop,
        client: ClientLink,
        config: PoolConfig,
        startup_fds: tuple[int, ...],
        starter: ForkServerStarter,
    ) -> None:
        self._client = client
        self._log_level = config.log_level
        self._jobs: dict[int, Run] = {}
        self._last_job = 0
        self._has_log: set[int] = set()
        self._stillborn: dict[int, Failure] = {}
        """The workers that could not be started, and of which the scheduler does not know."""
        self._dumps = Dumps(lambda job: job not in self._jobs)
        self._memory = MemoryRoom()
        self._tally = Tally()
        self._is_unsettled = False
        self._readiness = Readiness.NONE  # as far as was told
        self._warm_up = 0  # the client's number of the last one
        policy = StaffingPolicy(
            config.min_workers, config.idle_timeout_s, config.max_jobs_per_worker
        )
        self.scheduler: Scheduler[_Why] = Scheduler(
            config.max_workers, self._expected_memory, policy
        )
        self._crew = Crew(loop, self, config, startup_fds, starter)
        try:
            self._crew.start_fork_server()
        except OSError as error:
            self._perform(self.scheduler.broken(not_started(error)))

    # What the loop wants

    def patience_s(self) -> float | None:
        """How long the loop may wait for events."""
        tick = self.scheduler.next_tick()
        patience_s = [] if tick is None else [max(0.0, tick - time.monotonic())]
        if self._crew.sender.has_unsent:
            patience_s.append(_SEND_AGAIN_S)
        if self.scheduler.is_short_of_memory:
            patience_s.append(memory_room.SHORT_S)
        return min(patience_s, default=None)

    @property
    def spin_s(self) -> float:
        """For how long the loop should not sleep, for something is about to happen."""
        return _SPIN_S if self.scheduler.jobs_are_short else 0.0

    def go_on(self) -> None:
        """Do what is due after events, or when the patience is at its end.

        One go for all jobs that have come or ended since: each process is woken up once for them.
        """
        if self._crew.sender.has_unsent:
            self._crew.sender.send_rest()
        now = time.monotonic()
        if self._is_unsettled:
            self._is_unsettled = False
            self._look_at_memory(memory_room.OLD_S)
            self._perform(self.scheduler.settle(now))
        tick = self.scheduler.next_tick()
        if tick is not None and tick <= now:
            self._perform(self.scheduler.tick(now))
        if self.scheduler.is_short_of_memory:
            self._look_at_memory(memory_room.SHORT_S)
        self._tell_warmth()

    def dismiss(self) -> None:
        """Let all processes exit in order, for a while. There are no jobs any more."""
        self._perform(self.scheduler.quiesce(time.monotonic(), keeps_fork_server=True))
        self._crew.dismiss()

    def end(self) -> None:
        """Kill and reap everything."""
        self._crew.end()

    # What the client wants

    def submit(self, id: int, name: str, terms: JobTerms, payload: Payload) -> None:
        """A new job, whose number at the client is not in use. Takes over the payload."""
        self._last_job += 1
        job = self._last_job
        self._jobs[job] = Run(self._client, id, name, terms, payload)
        self._client.jobs[id] = job
        size = len(payload.body)
        if terms.env:
            size += len(env_as_json(terms.env))
        self.scheduler.submit(
            job,
            may_go_ahead=size <= _AHEAD_LIMIT and payload.is_inline,
            priority=terms.priority,
            retries=terms.retries,
        )
        self._is_unsettled = True

    def cancel(self, id: int) -> None:
        """The client does not want the job any more; it may have ended."""
        job = self._client.jobs.get(id)
        if job is not None:
            self._perform(self.scheduler.cancel(job, time.monotonic()))

    def cancel_queued(self) -> None:
        """So it goes with all jobs that no worker has."""
        self._perform(self.scheduler.cancel_queued(time.monotonic()))

    def warm_up(self, id: int) -> None:
        """Start all workers, and tell when they are there, as an answer to this warm-up."""
        self._readiness = Readiness.NONE  # whoever asks wants an answer
        self._warm_up = id
        self._perform(self.scheduler.warm_up(time.monotonic()))

    def quiesce(self, *, keeps_fork_server: bool) -> None:
        """Let jobs end, then workers, and then the fork server unless it is to stay."""
        now = time.monotonic()
        self._perform(self.scheduler.quiesce(now, keeps_fork_server=keeps_fork_server))

    def reload(self) -> None:
        """No job is to begin with what is preloaded now."""
        self._perform(self.scheduler.reload(time.monotonic()))

    def dump(self, id: int) -> None:
        """Tell the client what its job does."""
        number = self._client.jobs.get(id)
        worker = None if number is None else self.scheduler.worker_of(number)
        self._dumps.answer(self._client, id, self._crew, worker)

    def tell_peek(self, id: int) -> None:
        """Tell the client how things are."""
        peek = self._tally.peek(self.scheduler, self._crew, self._jobs, time.monotonic())
        self._client.send(peek.payload().message(Kind.PEEKED, id))

    def _tell_warmth(self) -> None:
        """Tell whether the workers are there, if that has changed."""
        scheduler = self.scheduler
        if scheduler.readiness != self._readiness:
            self._readiness = scheduler.readiness
            self._client.send(Message(Kind.WARMTH, self._warm_up, self._readiness))
        is_asleep = scheduler.is_asleep and not self._crew.fork_servers.some_leave
        if self._tally.note_sleep(time.monotonic(), is_asleep=is_asleep):
            if is_asleep:
                give_back_memory()
            what = "has quiesced" if is_asleep else "wakes up"
            self.log(Level.INFO, __name__, f"the pool {what}")

    def _look_at_memory(self, age_s: float) -> None:
        """See how much memory there is, if what is known is older than so many seconds."""
        free = self._memory.free(age_s)
        if free is not None:
            running = self.scheduler.running().items()
            expecting = {worker: job for worker, job in running if self._expected_memory(job)}
            used = self._crew.memory_of(expecting)
            self._perform(self.scheduler.memory_seen(free, used, time.monotonic()))

    def _expected_memory(self, number: int) -> int:
        return self._memory.expected(self._jobs[number])

    # What the scheduler decides

    def _perform(self, actions: Sequence[todo.Action[_Why]]) -> None:
        if not actions:
            return
        crew = self._crew
        pending = deque(actions)
        while pending:
            action = pending.popleft()
            if isinstance(action, todo.SendJob):
                if action.worker not in self._stillborn:
                    job = self._jobs[action.job]
                    crew.send_job(action.worker, action.job, job.terms, job.payload)
            elif isinstance(action, todo.TakeBack):
                unread = crew.take_back(action.worker)
                answer = self.scheduler.taken_back(action.worker, unread, time.monotonic())
                pending.extendleft(reversed(answer))
            elif isinstance(action, todo.ReportStarted):
                job = self._jobs[action.job]
                job.client.send(Message(Kind.STARTED, job.id))
                crew.note_long_job()
                worker = self.scheduler.worker_of(action.job)
                if job.terms.is_watched and worker is not None:
                    crew.watch_job(worker, action.job, job.terms)
            elif isinstance(action, todo.StartWorker):
                try:
                    crew.start_worker(action.worker)
                except OSError as error:
                    self._stillborn[action.worker] = not_started(error)
            elif isinstance(action, todo.EndWorker):
                crew.end_worker(action.worker)
            elif isinstance(action, todo.KillWorker):
                crew.kill_worker(action.worker)
            elif isinstance(action, todo.EndForkServer):
                crew.end_fork_server()
            elif isinstance(action, todo.ReplaceForkServer):
                crew.replace_fork_server()
            elif isinstance(action, todo.ReportNoWorkers):
                self._tell_no_workers(action.cause)
            elif isinstance(action, todo.ReportCancelled):
                job = self._end_job(action.job)
                job.client.send(Message(Kind.CANCELLED, job.id))
            else:
                self._fail_job(action.job, action.cause)
        while self._stillborn:
            worker = next(iter(self._stillborn))
            why = self._stillborn.pop(worker)
            self._perform(self.scheduler.worker_refused(worker, why, time.monotonic()))

    def _fail_job(self, number: int, why: _Why) -> None:
        job = self._end_job(number)
        if isinstance(why, Failure):
            job.client.send(why.payload().message(Kind.FAILED, job.id))
        else:
            job.client.send(result_message(job.id, why.outcome, why.payload, NO_USAGE))

    def _tell_no_workers(self, why: _Why) -> None:
        if isinstance(why, Failure):
            payload = without_worker(why).payload()
            self._client.send(payload.message(Kind.NO_WORKERS, self._warm_up))
        else:
            self._client.send(
                why.payload.message(Kind.INITIALIZER_FAILED, self._warm_up, why.outcome)
            )

    def _end_job(self, number: int) -> Run:
        job = self._jobs.pop(number)
        self._has_log.discard(number)
        del job.client.jobs[job.id]
        job.payload.close()
        return job

    # What the crew tells: the methods of `crew.Listener`

    def worker_ready(self, worker: int) -> None:
        self._perform(self.scheduler.worker_ready(worker, time.monotonic()))

    def job_ended(self, worker: int, result: Message) -> None:
        try:
            usage = usage_of(result)
        except ProtocolError as error:
            refuse(result, str(error))
        # One that has lost its descriptor goes on without: it is no fault of the worker's, and the
        # client knows what to say of it.
        if not lacks_descriptor(result):
            check_payload(result)  # raises if the client could not take it for one
        try:
            attempts = self.scheduler.attempts_of(result.id)
            actions = self.scheduler.job_finished(
                worker,
                result.id,
                time.monotonic(),
                is_outgrown=usage.worker_bytes > 0,
                took_s=usage.ended - usage.started,
            )
        except (KeyError, ValueError) as error:
            refuse(result, str(error))
        peak_bytes = max(usage.peak_bytes, self._crew.memory_seen(worker, result.id))
        if attempts != usage.attempts or peak_bytes != usage.peak_bytes:
            known = usage._replace(peak_bytes=peak_bytes, attempts=attempts)
            result = replace_usage(result, known)
        job = self._end_job(result.id)
        self._memory.note(job, peak_bytes)
        outcome = result.flag & ~HAS_OUTPUT
        job.client.send(Message(Kind.RESULT, job.id, outcome, result.form, result.body, result.fds))
        if actions:
            self._perform(actions)
        self._is_unsettled = True

    def over_limit(self, worker: int, job: int) -> bool:
        actions = self.scheduler.over_limit(worker, job)
        self._perform(actions)
        return bool(actions)

    def idle_memory(self, size: int) -> None:
        self._client.send(Message(Kind.IDLE_MEMORY, size))

    def worker_crashing(self, worker: int) -> None:
        self._perform(self.scheduler.worker_crashing(worker, time.monotonic()))

    def job_output(self, job: int, tail: bytes) -> None:
        # A job that runs again may have been silent this time.
        if (tail or job in self._has_log) and job in self._jobs:
            self._has_log.add(job)
            told = self._jobs[job]
            told.client.send(Message(Kind.LOG, told.id, body=tail))

    def name_of(self, job: int) -> str | None:
        return self._jobs[job].name if job in self._jobs else None

    def attempts_of(self, job: int) -> int:
        return self.scheduler.attempts_of(job) if job in self._jobs else 1

    def worker_lost(self, worker: int, last_started: int, why: Failure) -> None:
        unread = self._not_started(worker, last_started)
        self._tally.workers_lost += not self.scheduler.was_dismissed(worker)
        if last_started in self._jobs:
            self._memory.note(self._jobs[last_started], why.usage.peak_bytes)
        actions = self.scheduler.worker_lost(
            worker, unread, why, time.monotonic(), is_from_outside=why.is_from_outside
        )
        self._perform(actions)

    def crew_lost(
        self,
        last_started: Mapping[int, int],
        why: Failure,
        why_no_worker: Failure,
        *,
        was_leaving: bool,
    ) -> None:
        if not was_leaving:
            self._tally.fork_servers_lost += 1
        now = time.monotonic()
        unread = {worker: self._not_started(worker, job) for worker, job in last_started.items()}
        actions = self.scheduler.fork_server_lost(
            unread, why, why_no_worker, now, was_leaving=was_leaving
        )
        self._perform(actions)

    def _not_started(self, worker: int, last_started: int) -> list[int]:
        return [job for job in self.scheduler.jobs_of(worker) if job != last_started]

    def preload_failed(self, why: Failure) -> None:
        self._perform(self.scheduler.broken(why))

    def initializer_failed(self, outcome: int, payload: Payload) -> None:
        self._perform(self.scheduler.broken(_InitializerFailed(outcome, payload)))

    def log(self, level: Level, source: str, text: str) -> None:
        if level >= self._log_level:
            self._client.send(log_message(level, source, text))
