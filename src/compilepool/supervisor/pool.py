"""One pool: connects its clients, the rules that decide, and the crew that works.

Requests of clients and events of the crew change the state of the rules. Then `go_on` carries out
what the rules say, once for all requests and events that have come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from compilepool.light_typing import Any
from compilepool.linux.cpus import usable_cpus
from compilepool.linux.process import give_back_memory
from compilepool.supervisor.answers import JobDumps, Tally
from compilepool.supervisor.clients import Client, Clients
from compilepool.supervisor.crash_news import CrashNews
from compilepool.supervisor.crew import events
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.fork_server_start import ForkServerStarter
from compilepool.supervisor.jobs import Jobs
from compilepool.supervisor.kept_results import KeptResults
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.performer import FailureReason, Performer
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.rules.staffing import StaffingPolicy
from compilepool.supervisor.runs import RunTable, Waiter
from compilepool.supervisor.visited_pool import VisitedPool
from compilepool.supervisor.watch import free_memory
from compilepool.supervisor.watch.deaths import not_started, terminated
from compilepool.supervisor.watch.free_memory import MemoryRoom
from compilepool.wire.channel import refuse
from compilepool.wire.failure import KILLED_FROM_OUTSIDE, Cause
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Kind, Level, Message, ProtocolError, Readiness
from compilepool.wire.payloads import Payload, check_payload, lacks_descriptor
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import JobTerms
from compilepool.wire.usage import replace_usage, usage_of

_SEND_AGAIN_S = 0.005
_SPIN_S = 0.0001  # waking a process up takes 20 to 50 us, and happens twice for each run


class Pool:
    """One pool.

    Args:
        loop: the event loop.
        clients: the clients of the pool.
        config: the pool's configuration.
        startup_fds: the descriptors that every worker starts with.
        starter: starts the fork servers.

    Attributes:
        jobs: the unfinished jobs.
        visited: the pool for those who are no clients of it.
    """

    def __init__(
        self,
        loop: Loop,
        clients: Clients,
        config: PoolConfig,
        startup_fds: tuple[int, ...],
        starter: ForkServerStarter,
    ) -> None:
        self._clients = clients
        self._runs = RunTable()
        self._dumps = JobDumps(self._runs)
        self._memory = MemoryRoom()
        self._tally = Tally()
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.RunEnded: self._run_ended,
            events.TornDown: self._torn_down,
            events.RunOutput: self._run_output,
            events.WorkerReady: self._worker_ready,
            events.WorkerCrashing: self._worker_crashing,
            events.WorkerLost: self._worker_lost,
            events.OverLimit: self._over_limit,
            events.ForkServerLost: self._fork_server_lost,
            events.PreloadFailed: self._preload_failed,
            events.InitializerFailed: self._initializer_failed,
            events.IdleMemory: self._idle_memory,
            events.Logged: self._logged,
        }
        self._idle_bytes = 0
        self._terminated: set[WorkerId] = set()
        """The workers that have got SIGTERM."""
        self._may_need_memory = False
        """Whether runs have come or ended since the machine's memory was last measured."""
        policy = StaffingPolicy(
            config.min_workers, config.idle_timeout_s, config.max_jobs_per_worker
        )
        self._scheduler: Scheduler[FailureReason] = Scheduler(
            config.max_workers, self._expected_memory, policy
        )
        self._crew = Crew(loop, self._handle_event, config, startup_fds, starter)
        self._news = CrashNews(clients)
        self.jobs = Jobs(self._runs, self._scheduler, KeptResults(), self._news)
        self.visited = VisitedPool(
            clients, self._scheduler, self._crew, self._runs, self.jobs, self._dumps, self._tally
        )
        self._performer = Performer(self._scheduler, self._crew, self._runs, self.jobs, clients)
        try:
            self._crew.fork_servers.start()
        except OSError as error:
            self._scheduler.broken(not_started(error))

    # For the loop

    def patience_s(self) -> float | None:
        """The seconds for which the loop may wait for events; None means without limit."""
        wakes_at = self._scheduler.wakes_at()
        patience_s = [] if wakes_at is None else [max(0.0, wakes_at - time.monotonic())]
        if self._crew.sent_runs.has_unsent:
            patience_s.append(_SEND_AGAIN_S)
        if self._scheduler.is_short_of_memory:
            patience_s.append(free_memory.SHORT_S)
        return min(patience_s, default=None)

    @property
    def spin_s(self) -> float:
        """The seconds for which the loop polls before it sleeps, because results are due soon."""
        return _SPIN_S if self._scheduler.runs_are_short else 0.0

    @property
    def has_ended_all(self) -> bool:
        """Whether no run is left, not even an unwanted one."""
        return not self._scheduler.unfinished

    def go_on(self) -> None:
        """Do what is due after events, or when `patience_s` has passed."""
        if self._crew.sent_runs.has_unsent:
            self._crew.sent_runs.send_rest()
        if self._may_need_memory:
            self._may_need_memory = False
            self._measure_memory(free_memory.OLD_S)
        for client in self._clients:
            if client.is_terminated:
                self._terminate_rest(client)
        self._act()
        self._tally.note_queues(self._clients, self._scheduler, self._runs)
        if self._scheduler.is_short_of_memory and self._measure_memory(free_memory.SHORT_S):
            self._act()
        self._tell_readiness()
        self._note_sleep()

    def dismiss(self) -> None:
        """Let all processes exit, and wait for that for a bounded time. No run is left."""
        self._scheduler.quiesce(keeps_fork_server=True)
        self._act()
        self._crew.dismiss()

    def end(self) -> None:
        """Kill and reap everything."""
        self._crew.end()

    # Requests of clients

    def renew(self) -> bool:
        """Before a client comes: begin no run with modules whose files have changed.

        Returns:
            False if the client needs another pool: the fork server has loaded such modules, and
            other clients rely on it; or no worker can be started, which may be mended by now.
        """
        if self._scheduler.is_broken:
            return False
        if self._crew.fork_servers.is_outdated:
            if self._clients:
                return False
            self.reload()
        elif self._crew.workers.are_outdated:
            self._scheduler.replace_workers()
            self.jobs.renew()
        else:
            return True
        self._crew.workers.loaded_files.clear()
        return True

    def widen(self) -> None:
        """Use the CPUs of all clients, since a launcher may give each other ones."""
        cpus = self._clients.cpus
        if cpus - os.sched_getaffinity(0):
            self._crew.use_cpus(cpus)
            if self._clients.count_cpus:
                self._scheduler.raise_limit(usable_cpus())

    def greet(self, client: Client) -> None:
        """Tell a client that comes late what the others know. `go_on` tells it the readiness."""
        if self._idle_bytes:
            client.send(Message(Kind.IDLE_MEMORY, self._idle_bytes))

    def submit(self, client: Client, id: int, name: str, terms: JobTerms, payload: Payload) -> None:
        """Run a client's job, whose number is not in use. Takes over the payload."""
        self.jobs.submit(client, id, name, terms, payload)
        self._may_need_memory = True

    def warm_up(self, client: Client, id: int) -> None:
        """Start all workers, and tell the client when they are ready."""
        client.lets_sleep = False
        client.warm_up_id = id
        client.readiness = Readiness.NONE  # so that the client gets an answer
        self._scheduler.warm_up(time.monotonic())

    def quiesce(self, client: Client, *, keeps_fork_server: bool) -> None:
        """Note that a client lets the pool sleep after its jobs. The pool sleeps when all do."""
        client.lets_sleep = True
        client.keeps_fork_server = keeps_fork_server
        self._sleep_if_all_do()

    def reload(self) -> None:
        """Begin no run with the modules that are preloaded now; preload again."""
        self._scheduler.reload()
        self._act()  # at once: what is heard of the old processes next must not break the pool
        self.jobs.renew()

    def leave(self, client: Client) -> None:
        """Cancel all jobs of a client that has left."""
        self.jobs.cancel_all(client)
        self._sleep_if_all_do()

    def dump(self, client: Client, id: int) -> None:
        """Tell a client what its job is doing."""
        run = client.runs.get(id)
        worker = None if run is None else self._scheduler.worker_of(run)
        if run is not None and worker is None and not self._scheduler.waits(run):
            run = None  # it has ended, and its waiters will be told in this turn of the loop

        def tell(snapshot: JobSnapshot) -> None:
            is_there = client.runs.get(id) == run  # else it was cancelled, and its run goes on
            snapshot = snapshot if is_there else JobSnapshot("ended")
            client.send(snapshot.payload().message(Kind.DUMPED, id))

        self._dumps.answer(Waiter(client, id), tell, run, self._crew, worker)

    def tell_view(self, client: Client, id: int) -> None:
        """Tell a client the state of the pool, with its own jobs only."""
        now = time.monotonic()
        view = self._tally.view(client, self._clients, self._scheduler, self._crew, self._runs, now)
        client.send(view.payload().message(Kind.VIEWED, id))

    # Events of the crew

    def _handle_event(self, event: events.CrewEvent) -> None:
        self._handlers[type(event)](event)

    def _worker_ready(self, event: events.WorkerReady) -> None:
        self._scheduler.worker_ready(event.worker, time.monotonic())

    def _run_ended(self, event: events.RunEnded) -> None:
        worker, result = event
        try:
            usage = usage_of(result)
        except ProtocolError as error:
            refuse(result, str(error))
        # A RESULT that has lost its descriptor is passed on without it. The worker is not at fault,
        # and the client knows the right error.
        if not lacks_descriptor(result):
            check_payload(result)
        id = result.id
        run = self._runs[id]
        self.jobs.make_shareable(id, result)
        peak_bytes = max(usage.peak_bytes, self._crew.workers.memory_seen(worker, id))
        self._memory.note(run, peak_bytes)
        if run.attempt != usage.attempts or peak_bytes != usage.peak_bytes:
            # The worker did not know these values.
            known = usage._replace(peak_bytes=peak_bytes, attempts=run.attempt)
            result = replace_usage(result, known)
        self._scheduler.run_finished(
            worker,
            id,
            time.monotonic(),
            took_s=usage.ended - usage.started,
        )
        self.jobs.ended(id, result)
        self._may_need_memory = True

    def _torn_down(self, event: events.TornDown) -> None:
        worker, is_outgrown = event
        self._scheduler.torn_down(worker, time.monotonic(), is_outgrown=is_outgrown)

    def _run_output(self, event: events.RunOutput) -> None:
        self.jobs.put_out(event.run, event.tail)

    def _over_limit(self, event: events.OverLimit) -> None:
        if self._scheduler.over_limit(event.worker, event.run):
            self._crew.note_verdict(event.worker, event.verdict)

    def _worker_crashing(self, event: events.WorkerCrashing) -> None:
        self._scheduler.worker_crashing(event.worker)

    def _worker_lost(self, event: events.WorkerLost) -> None:
        worker, last_started, why = event
        if why.exitcode in KILLED_FROM_OUTSIDE and worker in self._terminated:
            why = terminated(why)
        was_dismissed = self._scheduler.was_dismissed(worker)
        self._tally.workers_lost += not was_dismissed
        run = self._runs.get(last_started)
        if run is not None:
            self._memory.note(run, why.usage.peak_bytes)
        if why.is_after_job and not self._scheduler.was_condemned(worker):
            is_orderly = was_dismissed and (why.cause is Cause.IDLE or why.exitcode == 0)
            if not is_orderly:
                self._news.died_idle(why)
        self._scheduler.worker_lost(
            worker,
            self._unread(worker, last_started),
            why,
            time.monotonic(),
            is_innocent=why.is_innocent,
        )

    def _fork_server_lost(self, event: events.ForkServerLost) -> None:
        self._tally.fork_servers_lost += not event.was_leaving
        unread = {worker: self._unread(worker, run) for worker, run in event.last_started.items()}
        self._scheduler.fork_server_lost(
            unread, event.why, event.why_no_worker, was_leaving=event.was_leaving
        )

    def _preload_failed(self, event: events.PreloadFailed) -> None:
        self._scheduler.broken(event.why)

    def _initializer_failed(self, event: events.InitializerFailed) -> None:
        self._scheduler.broken(event)

    def _idle_memory(self, event: events.IdleMemory) -> None:
        self._idle_bytes = event.size
        for client in self._clients:
            client.send(Message(Kind.IDLE_MEMORY, event.size))

    def _logged(self, event: events.Logged) -> None:
        self._clients.log(event.level, event.source, event.text)

    def _unread(self, worker: WorkerId, last_started: RunId) -> list[RunId]:
        return [run for run in self._scheduler.runs_of(worker) if run != last_started]

    def _act(self) -> None:
        """Carry out what the rules say until nothing is left to do."""
        while self._performer.carry_out(self._scheduler.next_actions(time.monotonic())):
            pass

    def _terminate_rest(self, client: Client) -> None:
        """Cancel a client's runs that wait, or wait again, and send SIGTERM to its workers, once.

        Those are all workers, or those that run what nobody else wants.
        """
        self.jobs.cancel_queued(client)
        for link in self._crew.workers.values():
            if not link.has_started or link.number in self._terminated:
                continue
            run = self._runs.get(link.status.job)
            is_own = run is not None and all(each.client is client for each in run.waiters)
            if is_own or len(self._clients) == 1:
                self._terminated.add(link.number)
                link.terminate()

    # Memory, and messages to clients

    def _measure_memory(self, age_s: float) -> bool:
        """Tell the rules how much memory is free.

        Returns:
            False if the last measurement is younger than `age_s` seconds, or the kernel does not
            tell.
        """
        free = self._memory.free(age_s)
        if free is None:
            return False
        firsts = self._scheduler.first_runs().items()
        expecting = {worker: run for worker, run in firsts if self._expected_memory(run)}
        self._scheduler.memory_seen(free, self._crew.workers.memory_of(expecting))
        return True

    def _expected_memory(self, id: RunId) -> int:
        return self._memory.expected(self._runs[id])

    def _tell_readiness(self) -> None:
        readiness = self._scheduler.readiness
        for client in self._clients:
            if client.readiness is not readiness:
                client.readiness = readiness
                client.send(Message(Kind.WARMTH, client.warm_up_id, readiness))

    def _note_sleep(self) -> None:
        is_asleep = self._scheduler.is_asleep and not self._crew.fork_servers.some_leave
        if self._tally.note_sleep(time.monotonic(), is_asleep=is_asleep):
            if is_asleep:
                give_back_memory()
            what = "has quiesced" if is_asleep else "wakes up"
            self._clients.log(Level.INFO, __name__, f"the pool {what}")

    def _sleep_if_all_do(self) -> None:
        if self._clients.let_sleep:
            self._scheduler.quiesce(keeps_fork_server=self._clients.keep_fork_server)
