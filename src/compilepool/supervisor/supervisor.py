"""The supervisor: between its client, the scheduler that decides, and the crew that works."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compilepool.supervisor import actions as todo
from compilepool.supervisor import memory_room
from compilepool.supervisor.client_link import ClientLink
from compilepool.supervisor.crew import Crew
from compilepool.supervisor.dumps import Dumps
from compilepool.supervisor.job import Job
from compilepool.supervisor.loop import Loop
from compilepool.supervisor.memory_room import MemoryRoom
from compilepool.supervisor.scheduler import Scheduler
from compilepool.supervisor.staffing import StaffingPolicy
from compilepool.supervisor.tally import Tally
from compilepool.wire import kernel
from compilepool.wire.channel import Channel, close_all, handle_each, refuse
from compilepool.wire.config import PoolConfig
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import (
    Form,
    Kind,
    Level,
    Message,
    ProtocolError,
    Shutdown,
    log_message,
)
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.spawn import FIRST_FD
from compilepool.wire.submission import env_as_json, read_submit
from compilepool.wire.usage import NO_USAGE, replace_usage, usage_of, with_usage

_SOURCE = "compilepool.supervisor"
_AHEAD_LIMIT = 16 * 1024  # bytes; two jobs in a worker's socket always fit its send buffer
_PACKETS_PER_WAKE = 32
_SEND_AGAIN_S = 0.005


class _InitializerFailed(NamedTuple):
    outcome: int
    payload: Payload


_Why = Failure | _InitializerFailed


class Supervisor:
    """One pool. Jobs have numbers of the supervisor's own, so that clients need not agree."""

    def __init__(self, channel: Channel, client_pidfd: int) -> None:
        self._fd_limit_before, fd_limit = kernel.raise_fd_limit()
        self._spill_above_fd = fd_limit // 2
        self._loop = Loop()
        self._client = ClientLink(
            self._loop, channel, client_pidfd, self._read_client, self._client_gone
        )
        self._crew: Crew | None = None
        self._scheduler: Scheduler[_Why] = Scheduler(0)
        self._memory = MemoryRoom()
        self._jobs: dict[int, Job] = {}
        self._dumps = Dumps(lambda job: job not in self._jobs)
        self._has_log: set[int] = set()
        self._last_job = 0
        self._tally = Tally()
        self._is_warm = False  # as far as was told
        self._log_level = 0
        self._shutdown: Shutdown | None = None

    def run(self) -> None:
        """Serve the client until it wants no more or is gone; then end all that was started."""
        while self._shutdown is not Shutdown.NOW:
            self._loop.run_once(self._patience_s())
            if self._crew is not None and self._crew.sender.has_unsent:
                self._crew.sender.send_rest()
            if self._scheduler.next_tick() is not None:
                self._perform(self._scheduler.tick(time.monotonic()))
            if self._scheduler.is_short_of_memory:
                self._look_at_memory(memory_room.SHORT_S)
            self._tell_warmth()
            self._client.flush()
            if self._shutdown is Shutdown.DRAIN and not self._scheduler.unfinished:
                self._tell_peek(0)  # the last word for the statistics
                self._client.flush_finally()
                if self._crew is not None:
                    quiesce = self._scheduler.quiesce(time.monotonic(), keeps_fork_server=True)
                    self._perform(quiesce)
                    self._crew.dismiss()
                break
        if self._crew is not None:
            self._crew.end()

    def _patience_s(self) -> float | None:
        """How long the loop may wait for events."""
        tick = self._scheduler.next_tick()
        patience_s = [] if tick is None else [max(0.0, tick - time.monotonic())]
        if self._crew is not None and self._crew.sender.has_unsent:
            patience_s.append(_SEND_AGAIN_S)
        if self._scheduler.is_short_of_memory:
            patience_s.append(memory_room.SHORT_S)
        return min(patience_s, default=None)

    def _tell_warmth(self) -> None:
        """Tell whether the workers are there, if that has changed."""
        scheduler = self._scheduler
        if scheduler.is_warm != self._is_warm:
            self._is_warm = scheduler.is_warm
            self._client.send(Message(Kind.WARMTH, flag=self._is_warm))
        if self._tally.note_sleep(time.monotonic(), is_asleep=scheduler.is_asleep):
            if scheduler.is_asleep:
                gc.collect()
                kernel.give_back_memory()
            what = "has quiesced" if scheduler.is_asleep else "wakes up"
            self.log(Level.INFO, _SOURCE, f"the pool {what}")

    def _tell_peek(self, id: int) -> None:
        if self._crew is not None:
            peek = self._tally.peek(self._scheduler, self._crew, self._jobs, time.monotonic())
            self._client.send(peek.payload().message(Kind.PEEKED, id))

    # The client

    def _client_gone(self) -> None:
        self._shutdown = Shutdown.NOW

    def _read_client(self) -> None:
        try:
            for _ in range(_PACKETS_PER_WAKE):
                messages = self._client.channel.receive(wait=False)
                if messages is None:
                    self._client_gone()
                if not messages:
                    return
                handle_each(messages, self._handle_client)
        except ProtocolError as error:
            print(f"compilepool supervisor: dropped its client: {error}", file=sys.stderr)
            self._client_gone()

    def _handle_client(self, message: Message) -> None:
        kind = message.kind
        now = time.monotonic()
        if kind is Kind.SUBMIT and self._crew is not None:
            if lacks_descriptor(message):
                lost = Message(Kind.RESULT, message.id, form=Form.MEMFD)
                self._client.send(with_usage(lost, NO_USAGE))
            else:
                self._submit(message)
        elif kind is Kind.CONFIGURE and self._crew is None:
            self._configure(message)
        elif message.fds or self._crew is None:
            refuse(message, "with descriptors, or before CONFIGURE")
        elif kind is Kind.CANCEL:
            job = self._client.jobs.get(message.id)
            if job is not None:
                self._perform(self._scheduler.cancel(job, now))
        elif kind is Kind.CANCEL_QUEUED:
            self._perform(self._scheduler.cancel_queued(now))
        elif kind is Kind.DUMP:
            self._dump(message.id)
        elif kind is Kind.WARM_UP:
            self._perform(self._scheduler.warm_up(now))
            self._is_warm = False  # whoever asks wants an answer
        elif kind is Kind.QUIESCE:
            keeps = bool(message.flag)
            self._perform(self._scheduler.quiesce(now, keeps_fork_server=keeps))
        elif kind is Kind.RELOAD:
            self._perform(self._scheduler.reload(now))
        elif kind is Kind.PEEK:
            self._tell_peek(message.id)
        elif kind is Kind.SHUTDOWN:
            self._shutdown = Shutdown.NOW if message.flag else Shutdown.DRAIN
        else:
            refuse(message, "from a client")

    def _configure(self, message: Message) -> None:
        own = 1 if message.form is Form.MEMFD else 0
        startup_fds = message.fds[own:]
        config = PoolConfig.of_payload(of_message(message._replace(fds=message.fds[:own])))
        self._log_level = config.log_level
        policy = StaffingPolicy(
            config.min_workers, config.idle_timeout_s, config.max_jobs_per_worker
        )
        self._scheduler = Scheduler(config.max_workers, self._expected_memory, policy)
        self._crew = Crew(
            self._loop, self, config, self._client.pidfd, startup_fds, self._fd_limit_before
        )
        try:
            self._crew.start_fork_server()
        except OSError as error:
            self._perform(self._scheduler.broken(Failure(Cause.START, text=str(error))))

    def _submit(self, message: Message) -> None:
        id = message.id
        try:
            name, terms, message = read_submit(message)
        except ProtocolError:
            close_all(message.fds)
            raise
        payload = of_message(message)
        if id in self._client.jobs:
            payload.close()
            raise ProtocolError(f"job {id} submitted twice")
        # The kernel hands out the lowest free number: a high one means that many are in use.
        if payload.fd > self._spill_above_fd:
            payload = payload.spill()
        self._last_job += 1
        job = self._last_job
        self._jobs[job] = Job(self._client, id, name, terms, payload)
        self._client.jobs[id] = job
        size = len(payload.body) + (len(env_as_json(terms.env)) if terms.env else 0)
        self._look_at_memory(memory_room.OLD_S)
        actions = self._scheduler.submit(
            job,
            time.monotonic(),
            may_go_ahead=payload.is_inline and size <= _AHEAD_LIMIT,
            priority=terms.priority,
            retries=terms.retries,
        )
        self._perform(actions)

    def _look_at_memory(self, age_s: float) -> None:
        """See how much memory there is, if what is known is older than so many seconds."""
        free = None if self._crew is None else self._memory.free(age_s)
        if free is not None and self._crew is not None:
            running = self._scheduler.running().items()
            expecting = {worker: job for worker, job in running if self._expected_memory(job)}
            used = self._crew.memory_of(expecting)
            self._perform(self._scheduler.memory_seen(free, used, time.monotonic()))

    def _expected_memory(self, number: int) -> int:
        return self._memory.expected(self._jobs[number])

    def _dump(self, id: int) -> None:
        number = self._client.jobs.get(id)
        worker = None if number is None else self._scheduler.worker_of(number)
        self._dumps.answer(self._client, id, self._crew, worker)

    # What the scheduler decides

    def _perform(self, actions: Sequence[todo.Action[_Why]]) -> None:
        crew = self._crew
        assert crew is not None
        stillborn: dict[int, Failure] = {}
        pending = deque(actions)
        while pending:
            action = pending.popleft()
            if isinstance(action, todo.SendJob):
                if action.worker not in stillborn:
                    job = self._jobs[action.job]
                    crew.send_job(action.worker, action.job, job.terms, job.payload)
            elif isinstance(action, todo.TakeBack):
                unread = crew.take_back(action.worker)
                answer = self._scheduler.taken_back(action.worker, unread, time.monotonic())
                pending.extendleft(reversed(answer))
            elif isinstance(action, todo.ReportStarted):
                job = self._jobs[action.job]
                job.client.send(Message(Kind.STARTED, job.id))
                crew.note_long_job()
                worker = self._scheduler.worker_of(action.job)
                if job.terms.is_watched and worker is not None:
                    crew.watch_job(worker, action.job, job.terms)
            elif isinstance(action, todo.StartWorker):
                try:
                    crew.start_worker(action.worker)
                except OSError as error:
                    stillborn[action.worker] = Failure(Cause.START, text=str(error))
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
        for worker, why in stillborn.items():
            self._perform(self._scheduler.worker_refused(worker, why, time.monotonic()))

    def _fail_job(self, number: int, why: _Why) -> None:
        job = self._end_job(number)
        if isinstance(why, Failure):
            job.client.send(why.payload().message(Kind.FAILED, job.id))
        else:
            result = why.payload.message(Kind.RESULT, job.id, why.outcome)
            job.client.send(with_usage(result, NO_USAGE))

    def _tell_no_workers(self, why: _Why) -> None:
        if isinstance(why, Failure):
            self._client.send(why.payload().message(Kind.NO_WORKERS))
        else:
            self._client.send(why.payload.message(Kind.INITIALIZER_FAILED, 0, why.outcome))

    def _end_job(self, number: int) -> Job:
        job = self._jobs.pop(number)
        self._has_log.discard(number)
        del job.client.jobs[job.id]
        job.payload.close()
        return job

    # What the crew tells: the methods of `crew.Listener`

    def worker_ready(self, worker: int) -> None:
        self._perform(self._scheduler.worker_ready(worker, time.monotonic()))

    def job_ended(self, worker: int, result: Message) -> None:
        try:
            usage = usage_of(result)
        except ProtocolError as error:
            refuse(result, str(error))
        # One that has lost its descriptor goes on without: it is no fault of the worker's, and the
        # client knows what to say of it.
        if not lacks_descriptor(result):
            of_message(result)  # raises if the client could not take it for a payload
        try:
            attempts = self._scheduler.attempts_of(result.id)
            actions = self._scheduler.job_finished(
                worker,
                result.id,
                time.monotonic(),
                is_outgrown=usage.worker_bytes > 0,
            )
        except (KeyError, ValueError) as error:
            refuse(result, str(error))
        assert self._crew is not None
        peak_bytes = max(usage.peak_bytes, self._crew.memory_seen(worker, result.id))
        if (attempts, peak_bytes) != (usage.attempts, usage.peak_bytes):
            known = usage._replace(peak_bytes=peak_bytes, attempts=attempts)
            result = replace_usage(result, known)
        job = self._end_job(result.id)
        self._memory.note(job, peak_bytes)
        job.client.send(result._replace(id=job.id))
        self._perform(actions)

    def over_limit(self, worker: int, job: int) -> bool:
        actions = self._scheduler.over_limit(worker, job)
        self._perform(actions)
        return bool(actions)

    def idle_memory(self, size: int) -> None:
        self._client.send(Message(Kind.IDLE_MEMORY, size))

    def worker_crashing(self, worker: int) -> None:
        self._perform(self._scheduler.worker_crashing(worker, time.monotonic()))

    def job_output(self, job: int, tail: bytes) -> None:
        # A job that runs again may have been silent this time.
        if job in self._jobs and (tail or job in self._has_log):
            self._has_log.add(job)
            told = self._jobs[job]
            told.client.send(Message(Kind.LOG, told.id, body=tail))

    def name_of(self, job: int) -> str | None:
        return self._jobs[job].name if job in self._jobs else None

    def worker_lost(self, worker: int, last_started: int, why: Failure) -> None:
        unread = self._not_started(worker, last_started)
        self._tally.workers_lost += not self._scheduler.was_dismissed(worker)
        if last_started in self._jobs:
            self._memory.note(self._jobs[last_started], why.usage.peak_bytes)
            attempts = self._scheduler.attempts_of(last_started)
            usage = why.usage._replace(attempts=attempts)
            why = why._replace(usage=usage)
        actions = self._scheduler.worker_lost(
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
        actions = self._scheduler.fork_server_lost(
            unread, why, why_no_worker, now, was_leaving=was_leaving
        )
        self._perform(actions)

    def _not_started(self, worker: int, last_started: int) -> list[int]:
        return [job for job in self._scheduler.jobs_of(worker) if job != last_started]

    def preload_failed(self, why: Failure) -> None:
        self._perform(self._scheduler.broken(why))

    def initializer_failed(self, outcome: int, payload: Payload) -> None:
        self._perform(self._scheduler.broken(_InitializerFailed(outcome, payload)))

    def log(self, level: Level, source: str, text: str) -> None:
        if level >= self._log_level:
            self._client.send(log_message(level, source, text))


def main() -> None:
    """Run the supervisor of this process. Descriptors: the client's socket, the client's pidfd."""
    kernel.set_process_title("compilepool supervisor", "cp-supervisor")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel.become_subreaper()
    client_pidfd = FIRST_FD + 1
    kernel.close_fds_from(client_pidfd + 1)
    os.set_inheritable(client_pidfd, False)
    Supervisor(Channel.adopt(FIRST_FD), client_pidfd).run()
