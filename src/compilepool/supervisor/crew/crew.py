"""The processes below the supervisor: the fork server and the workers."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from compilepool.linux import pidfds
from compilepool.supervisor.crew.cpu_pins import CpuPins
from compilepool.supervisor.crew.fork_server_start import ForkServerStarter
from compilepool.supervisor.crew.fork_servers import ForkServers
from compilepool.supervisor.crew.job_sender import JobSender
from compilepool.supervisor.crew.listener import Listener
from compilepool.supervisor.crew.logs import CrewLog, LogDir
from compilepool.supervisor.links.fork_server import ForkServerLink
from compilepool.supervisor.links.loop import Loop, ScheduledCall
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch import deaths
from compilepool.supervisor.watch.crashes import CrashWatch
from compilepool.supervisor.watch.endings import Endings
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.job_memory import resident_growth
from compilepool.supervisor.watch.limits import LimitWatch
from compilepool.wire.channel import close_all, handle_each, refuse
from compilepool.wire.failure import Failure
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import HAS_OUTPUT, Kind, Message, ProtocolError, read_json
from compilepool.wire.payloads import Payload, of_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.python_stack import tells_of_crash
from compilepool.wire.submission import JobTerms
from compilepool.wire.worker_start import WorkerOrders

_PACKETS_PER_WAKE = 32
_WORKERS_EXIT_S = 1.0
_ORDERLY_EXIT_S = 2.0


class Crew:
    """The fork servers and the workers of one pool.

    The death of a worker is heard from its fork server, its parent, which has then killed what the
    worker left; the death of a fork server from its pidfd.
    """

    def __init__(
        self,
        loop: Loop,
        listener: Listener,
        config: PoolConfig,
        startup_fds: tuple[int, ...],
        starter: ForkServerStarter,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._config = config
        self._startup_fds = startup_fds
        self._workers: dict[int, WorkerLink] = {}
        self._exits: dict[int, ScheduledCall] = {}
        """Until when those that were told to may take to exit."""
        self.sender = JobSender()
        self._log = CrewLog(listener)
        self._log_dir = LogDir(config.log_dir, listener.name_of, self._log.warn)
        self._deaths = deaths.Deaths(config)
        self._crash_watch = CrashWatch(loop, config, self._deaths, listener.worker_crashing)
        self._limit_watch = LimitWatch(loop, self._over_limit)
        self._endings = Endings(loop, self._crash_watch, self._deaths)
        self._pins = CpuPins(config.cpus, pin=config.pin_workers)
        self._idle_memory_of: int | None = None
        """Who was asked, as the first, what it takes without a job. Workers are alike."""
        self.fork_servers = ForkServers(
            loop,
            config,
            starter,
            self._handle_fork_server,
            self._fork_server_lost,
            self._log.warn,
            self._crash_watch.inspector_pids,
        )

    @property
    def workers(self) -> Iterable[WorkerLink]:
        """All workers."""
        return self._workers.values()

    # What the scheduler wants

    def start_fork_server(self) -> None:
        """Start the fork server. Raises OSError if that fails."""
        self.fork_servers.start()

    def end_fork_server(self) -> None:
        """Let the fork server end when its workers have; the next worker comes from another."""
        self.fork_servers.let_go()

    def replace_fork_server(self) -> None:
        """Likewise, and start another one now, which forks workers if it may."""
        self.fork_servers.let_go()
        self.fork_servers.try_forking_again()
        with contextlib.suppress(OSError):  # the next worker will tell
            self.fork_servers.start()

    def start_worker(self, number: int) -> None:
        """Start a worker. Raises OSError if that fails, and then there is none."""
        server = self.fork_servers.current or self.fork_servers.start()
        link = self._new_link(number)
        self._workers[number] = link
        server.workers.add(number)
        try:
            self._request(server, link)
        except OSError:
            self._forget(link)
            raise

    def end_worker(self, number: int) -> None:
        """Let the worker exit in order; it is killed if that takes long. `worker_lost` follows."""
        link = self._workers.get(number)
        if link is not None:  # else it could not be started
            link.end_input()
            due = time.monotonic() + _WORKERS_EXIT_S
            self._exits[number] = self._loop.call_at(due, link.kill)

    def send_job(self, worker: int, job: int, terms: JobTerms, payload: Payload) -> None:
        """Put a job into the worker's socket."""
        self.sender.send(self._workers[worker], job, terms, payload)

    def take_back(self, worker: int) -> list[int]:
        """Take the unread jobs from the worker's socket; returns their numbers."""
        # One that could not be started, as the scheduler is about to learn, has no socket.
        return self._workers[worker].take_back() if worker in self._workers else []

    def kill_worker(self, worker: int) -> None:
        """End the worker, and the job that it runs; `worker_lost` follows within a bound."""
        self._endings.end(self._workers[worker])

    def watch_job(self, worker: int, job: int, terms: JobTerms) -> None:
        """The worker runs the job, which has a limit: `over_limit` follows if it goes over it."""
        self._limit_watch.watch(self._workers[worker], job, terms)

    def memory_of(self, jobs: Mapping[int, int]) -> dict[int, int]:
        """At most so many bytes does each job take, of those that run.

        Args:
            jobs: of each worker.
        """
        known = jobs.keys() & self._workers.keys()  # not one that could not be started
        links = [(self._workers[worker], jobs[worker]) for worker in known]
        return {
            job: resident_growth(link.pid, link.status.before)
            for link, job in links
            if link.has_started and link.status.job == job
        }

    def memory_seen(self, worker: int, job: int) -> int:
        """The most that a job was seen to take, in bytes; 0 if nobody has looked."""
        return self._workers[worker].memory_seen(job)

    def runs(self, worker: int, job: int) -> bool:
        """Whether the worker has begun the job."""
        return worker in self._workers and self._workers[worker].status.job == job

    def look_into(self, worker: int, on_done: Callable[[JobSnapshot], None]) -> None:
        """Find out what a worker, which runs a job, does just now; `on_done` is called once."""
        self._crash_watch.take_snapshot(self._workers[worker], on_done)

    def note_long_job(self) -> None:
        """A job turns out to be long: if it is killed for memory, that will have been news."""
        self._deaths.note_long_job()

    def dismiss(self) -> None:
        """Let workers, which were told to end, and then fork servers, exit; for a while."""
        deadline = time.monotonic() + _WORKERS_EXIT_S
        while self._some_listen() and (left := deadline - time.monotonic()) > 0:
            self._loop.run_once(left)
        self.fork_servers.finish(_ORDERLY_EXIT_S)

    def end(self) -> None:
        """Kill and reap everything."""
        # They do so by themselves, and would if this process were killed meanwhile. Killed first,
        # they would leave all that jobs have started to this process alone.
        self.fork_servers.finish()
        for server in self.fork_servers.all:
            server.bury()
        if survivors := pidfds.sweep():  # the client does not listen any more
            print(f"compilepool: cannot kill processes {survivors}", file=sys.stderr)

    def _some_listen(self) -> bool:
        """Whether there are workers, and fork servers that are not busy with the preload."""
        servers = self.fork_servers.all
        return bool(self._workers) and any(server.is_ready for server in servers)

    def _request(self, server: ForkServerLink, link: WorkerLink) -> None:
        if self._idle_memory_of is None:
            self._idle_memory_of = link.number
        fds: list[int] = []
        try:
            for fd in (*link.fds.flat(), *self._startup_fds):
                fds.append(os.dup(fd))
        except OSError:
            close_all(fds)
            raise
        orders = WorkerOrders(
            self._pins.cpus_of(link.number),
            self._idle_memory_of == link.number,
            self._config.max_worker_memory or 0,
        )
        body = orders.encode()
        message = Message(Kind.START_WORKER, link.number, body=body, fds=tuple(fds))
        server.send(message)

    # The workers

    def _new_link(self, number: int) -> WorkerLink:
        def log(data: bytes) -> None:
            self._log_dir.write(link.jobs[0], data)
            if tells_of_crash(data) and link.has_started:
                self._crash_watch.suspect(link)

        link = WorkerLink(number, self._loop if self._config.capture else None, log)
        self._loop.watch(link.channel.fileno(), lambda: self._read_worker(link))
        self._loop.watch(link.crash_socket.fileno(), lambda: self._crash_watch.read(link))
        return link

    def _forget(self, link: WorkerLink) -> None:
        del self._workers[link.number]
        self._loop.forget(link.channel.fileno())
        self._loop.forget(link.crash_socket.fileno())
        link.close()
        self._crash_watch.forget(link)
        self._deaths.forget(link)
        self.sender.forget(link)
        self._limit_watch.forget(link.number)
        self._endings.forget(link)
        self._pins.free(link.number)
        if self._idle_memory_of == link.number and not link.is_ready:
            self._idle_memory_of = None
        if exit_timer := self._exits.pop(link.number, None):
            exit_timer.cancel()
        self.fork_servers.worker_gone(link.number)

    def _read_worker(self, link: WorkerLink) -> None:
        def handle(message: Message) -> None:
            self._handle_worker(link, message)

        try:
            for _ in range(_PACKETS_PER_WAKE):
                messages = link.channel.receive(wait=False)
                if messages is None:
                    # No death: that leaves its end of the socket open here.
                    raise ProtocolError("the end of its output")
                if not messages:
                    break
                handle_each(messages, handle)
                if not link.jobs:
                    break  # there will be no more
        except ProtocolError as error:
            self._loop.forget(link.channel.fileno())
            link.trouble = f"it was killed because it sent nonsense: {error}"
            link.kill()

    def _handle_worker(self, link: WorkerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.RESULT:
            if self._deaths.evidence(link).verdict is not None:
                # It came too late: the job was over its limit, and has no other end than that.
                close_all(message.fds)
                return
            if link.jobs and link.jobs[0] == message.id:
                self._limit_watch.forget(link.number)
                self._end_output(link, has_output=bool(message.flag & HAS_OUTPUT))
            self._listener.job_ended(link.number, message)
        elif kind is Kind.LOGGED and not message.fds:
            self._log.relay(message, link.pid)
        elif link.is_ready:
            refuse(message, "from a worker that has started")  # it would concern all workers
        elif kind is Kind.INITIALIZER_FAILED and self.fork_servers.of(link.number).is_leaving:
            close_all(message.fds)  # that of the new preload may do better
        elif kind is Kind.INITIALIZER_FAILED:
            self._listener.initializer_failed(message.flag, of_message(message).spill())
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.READY:
            link.is_ready = True
            link.importing = ""
            if message.id:
                self._listener.idle_memory(message.id)
            self._listener.worker_ready(link.number)
        elif kind is Kind.IMPORTING:
            link.importing = message.body.decode(errors="replace")
        elif kind is Kind.PRELOAD_FAILED:
            self._preload_raised(self.fork_servers.of(link.number), message)
        else:
            refuse(message, "from a worker")

    def _over_limit(self, link: WorkerLink, job: int, verdict: Verdict) -> None:
        known = self._deaths.evidence(link)
        if known.crash is None:
            known.verdict = verdict
            if not self._listener.over_limit(link.number, job):
                known.verdict = None

    def _hear_last_words(self, link: WorkerLink) -> None:
        self._loop.forget(link.channel.fileno())
        try:
            handle_each(link.last_words(), lambda message: self._handle_worker(link, message))
        except ProtocolError as error:
            link.trouble = f"it sent nonsense: {error}"

    def _preload_raised(self, server: ForkServerLink, message: Message) -> None:
        if server.is_leaving:
            return  # the next one may do better
        body = read_json(message.body)
        why = deaths.preload_raised(str(body.get("module")), str(body.get("text")))
        self._listener.preload_failed(why)

    def _preload_died(self, why: Failure | None) -> None:
        if why is not None:
            self._listener.preload_failed(why)

    def _worker_exited(self, message: Message) -> None:
        link = self._workers.get(message.id)
        body = read_json(message.body)
        exitcode = body.get("exitcode")
        if link is None or not isinstance(exitcode, int | None):
            refuse(message, "of no worker")
        self._hear_last_words(link)
        last_started = link.status.job
        attempts = self._listener.attempts_of(last_started)
        why = self._deaths.of_worker(link, exitcode, body, attempts)
        if link.importing and not self.fork_servers.of(link.number).is_leaving:
            self._preload_died(deaths.of_preload(why, link.importing))
        if link.jobs[:1] == [last_started]:
            self._end_output(link)
        self._forget(link)
        end = "has ended" if why.exitcode == 0 else f"has died, exit code {why.exitcode}"
        self._log.debug(f"worker {link.number} (pid {link.pid}) {end}")
        self._listener.worker_lost(link.number, last_started, why)

    def _end_output(self, link: WorkerLink, *, has_output: bool = True) -> None:
        """Its first job has ended: all that the job has written is there, if it has."""
        job = link.jobs[0]
        self._listener.job_output(job, link.job_ended(has_output=has_output))
        if self._config.log_dir:
            self._log_dir.end(job)

    # The fork server

    def _handle_fork_server(self, server: ForkServerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.WORKER_STARTED and len(message.fds) == 1 and message.id in self._workers:
            self._worker_started(self._workers[message.id], message)
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.WORKER_EXITED:
            self._worker_exited(message)
        elif kind is Kind.LOGGED:
            self._log.relay(message, server.pid)
        elif kind is Kind.IMPORTING:
            server.importing = message.body.decode(errors="replace")
        elif kind is Kind.READY:
            self.fork_servers.is_ready(server)
            self._log.debug(f"the fork server (pid {server.pid}) is ready")
        elif kind is Kind.PRELOAD_FAILED:
            self._preload_raised(server, message)
        elif kind is Kind.UNSAFE_TO_FORK:
            self._fall_back_to_spawn(server, message.body.decode(errors="replace"))
        else:
            refuse(message, "from a fork server")

    def _worker_started(self, link: WorkerLink, message: Message) -> None:
        try:
            pid = int(read_json(message.body)["pid"])
        except (KeyError, TypeError, ValueError):
            refuse(message, "without a pid")
        link.started(pid, message.fds[0])
        self._log.debug(f"worker {link.number} (pid {pid}) has started")
        self._crash_watch.read(link)  # it may have crashed already

    def _fall_back_to_spawn(self, server: ForkServerLink, reason: str) -> None:
        if server is not self.fork_servers.current:
            return  # it is about to end
        self._log.warn(reason)
        successor = self.fork_servers.start_spawning_in_place_of(server)
        for number in server.workers:
            successor.workers.add(number)
            self._request(successor, self._workers[number])

    def _fork_server_lost(self, server: ForkServerLink) -> None:
        exitcode, text = self.fork_servers.bury(server)
        tell = self._log.debug if server.is_leaving else self._log.warn
        tell(f"the fork server (pid {server.pid}) has ended, exit code {exitcode}")
        # It stays in place for what its workers' last words cause: that must start no new one.
        for number in sorted(server.workers):
            link = self._workers[number]
            self._hear_last_words(link)
            if link.jobs[:1] == [link.status.job]:
                self._end_output(link)
        why = deaths.of_fork_server(exitcode, server.importing, text)
        if not (server.is_ready or server.is_leaving):
            self._preload_died(deaths.of_preload(why, server.importing))
        # Not before: what was heard may have had more workers requested of it.
        links = [self._workers[number] for number in sorted(server.workers)]
        last_started = {link.number: link.status.job for link in links}
        for link in links:
            self._forget(link)
        self.fork_servers.drop(server)
        self._listener.crew_lost(
            last_started,
            why,
            deaths.without_worker(why),
            was_leaving=server.is_leaving,
        )
