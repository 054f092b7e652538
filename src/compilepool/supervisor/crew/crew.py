"""The processes below the supervisor: the fork servers and the workers.

The pool tells the crew what to do. The crew tells the pool what has happened, as events.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable

from compilepool.linux import pidfds
from compilepool.supervisor.crew import events
from compilepool.supervisor.crew.fork_servers import ForkServers
from compilepool.supervisor.crew.links import WorkerLinks
from compilepool.supervisor.crew.logs import CrewLog, LogDir
from compilepool.supervisor.crew.sent_runs import SentRuns
from compilepool.supervisor.crew.start_requests import StartRequests
from compilepool.supervisor.fork_server_start import ForkServerStarter
from compilepool.supervisor.links.fork_server import ForkServerLink
from compilepool.supervisor.links.loop import Loop, ScheduledCall
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.runs import Run
from compilepool.supervisor.watch import deaths
from compilepool.supervisor.watch.crashes import CrashWatch
from compilepool.supervisor.watch.endings import Endings
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.limits import LimitWatch
from compilepool.wire.channel import close_all, handle_each, refuse
from compilepool.wire.failure import Failure
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.loaded_files import read_loaded
from compilepool.wire.messages import HAS_OUTPUT, Kind, Message, ProtocolError, read_json
from compilepool.wire.payloads import lacks_descriptor, of_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.python_stack import tells_of_crash

_PACKETS_PER_WAKE = 32
_WORKERS_EXIT_S = 1.0
_TEARDOWN_S = 10.0
_ORDERLY_EXIT_S = 2.0


class Crew:
    """The fork servers and the workers of one pool.

    The fork server is the parent of its workers. It reports a worker's death after it has killed
    what the worker left. A fork server's death shows at its pidfd.

    Args:
        loop: the event loop.
        tell: called with each event. It may raise `ProtocolError` for a RESULT.
        config: the pool's configuration.
        startup_fds: the descriptors that every worker starts with.
        starter: starts the fork servers.
    """

    def __init__(
        self,
        loop: Loop,
        tell: Callable[[events.CrewEvent], None],
        config: PoolConfig,
        startup_fds: tuple[int, ...],
        starter: ForkServerStarter,
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._config = config
        self.workers = WorkerLinks()
        self._exits: dict[int, ScheduledCall] = {}
        """For each worker that was told to exit: the call that kills it if it takes too long."""
        self.sent_runs = SentRuns()
        self._requests = StartRequests(config, startup_fds)
        self._log = CrewLog(tell)
        self._log_dir = LogDir(config.log_dir, self._log.warn)
        self._deaths = deaths.Deaths(config)
        self._crash_watch = CrashWatch(loop, config, self._deaths, self._crashed)
        self._limit_watch = LimitWatch(loop, self._over_limit)
        self._endings = Endings(loop, self._crash_watch, self._deaths)
        self.fork_servers = ForkServers(
            loop,
            config,
            starter,
            self._handle_fork_server,
            self._fork_server_lost,
            self._log.warn,
            self._crash_watch.inspector_pids,
        )

    # What the rules want

    def start_worker(self, number: WorkerId) -> None:
        """Start a worker. If that raises OSError, the worker does not exist."""
        server = self.fork_servers.current or self.fork_servers.start()
        link = self._new_link(number)
        self.workers[number] = link
        server.workers.add(number)
        try:
            server.send(self._requests.message(link))
        except OSError:
            self._forget(link)
            raise

    def end_worker(self, number: WorkerId) -> None:
        """Let the worker exit, and kill it if that takes too long. `WorkerLost` follows.

        What its last run has left may take longer to tear down than an exit.
        """
        link = self.workers.get(number)
        if link is not None:  # otherwise the worker could not be started
            link.end_input()
            patience_s = _TEARDOWN_S if link.status.ended else _WORKERS_EXIT_S
            due = time.monotonic() + patience_s
            self._exits[number] = self._loop.call_at(due, lambda: self._end_late(link))

    def send_run(self, worker: WorkerId, id: RunId, run: Run) -> None:
        """Put a run into the worker's socket."""
        self.sent_runs.send(self.workers[worker], id, run)

    def take_back(self, worker: WorkerId) -> list[RunId]:
        """Take the unread runs from the worker's socket. Returns them in the order sent."""
        # If the worker could not be started, it has no socket. The rules learn of that next.
        taken = self.workers[worker].take_back() if worker in self.workers else []
        self.sent_runs.forget_runs(taken)
        return taken

    def kill_worker(self, worker: WorkerId) -> None:
        """End the worker and its current run. `WorkerLost` follows within a bound."""
        self._endings.end(self.workers[worker])

    def note_verdict(self, worker: WorkerId, verdict: Verdict) -> None:
        """Note why the worker, which is about to be killed, must die."""
        self._deaths.evidence(self.workers[worker]).verdict = verdict

    def note_long_run(self, worker: WorkerId, id: RunId, run: Run) -> None:
        """A run turns out to be long. `OverLimit` follows if it exceeds a limit."""
        self._deaths.note_long_run()
        if run.terms.is_watched:
            self._limit_watch.watch(self.workers[worker], id, run.terms)

    def take_snapshot(self, worker: WorkerId, on_done: Callable[[JobSnapshot], None]) -> None:
        """Find out what the worker's current run is doing. `on_done` is called once."""
        self._crash_watch.take_snapshot(self.workers[worker], on_done)

    def use_cpus(self, cpus: set[int]) -> None:
        """Let this process and all below it that runs jobs use these CPUs, if they exist."""
        servers = [server.pid for server in self.fork_servers.all]
        for pid in (os.getpid(), *servers, *(link.pid for link in self.workers.values())):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(pid, cpus)

    def dismiss(self) -> None:
        """Wait a bounded time for workers, which were told to exit, and then for fork servers."""
        deadline = time.monotonic() + _WORKERS_EXIT_S
        while self._some_listen() and (left := deadline - time.monotonic()) > 0:
            self._loop.run_once(left)
        self.fork_servers.finish(_ORDERLY_EXIT_S)

    def end(self) -> None:
        """Kill and reap everything."""
        # Fork servers kill what is below them and exit, even if this process is killed meanwhile.
        # If they were killed first, only this process could kill what runs have started.
        self.fork_servers.finish()
        for server in self.fork_servers.all:
            server.bury()
        if survivors := pidfds.sweep():  # the client no longer reads logs
            print(f"compilepool: cannot kill processes {survivors}", file=sys.stderr)

    def _end_late(self, link: WorkerLink) -> None:
        if link.status.ended:
            link.trouble = f"that took longer than {_TEARDOWN_S:g} s"
        link.kill()

    def _some_listen(self) -> bool:
        """Whether there are workers, and a fork server that has done its preload."""
        servers = self.fork_servers.all
        return bool(self.workers) and any(server.is_ready for server in servers)

    # The workers

    def _new_link(self, number: int) -> WorkerLink:
        def log(data: bytes) -> None:
            if run := self.sent_runs.get(link.runs[0]):
                self._log_dir.write(link.runs[0], run.name, data)
            if tells_of_crash(data) and link.has_started:
                self._crash_watch.suspect(link)

        link = WorkerLink(number, self._loop if self._config.capture else None, log)
        self._loop.watch(link.channel.fileno(), lambda: self._read_worker(link))
        self._loop.watch(link.crash_socket.fileno(), lambda: self._crash_watch.read(link))
        return link

    def _forget(self, link: WorkerLink) -> None:
        del self.workers[link.number]
        self.sent_runs.forget_runs(link.runs)
        self._loop.forget(link.channel.fileno())
        self._loop.forget(link.crash_socket.fileno())
        link.close()
        self._crash_watch.forget(link)
        self._deaths.forget(link)
        self.sent_runs.forget_worker(link)
        self._limit_watch.forget(link.number)
        self._endings.forget(link)
        self._requests.forget(link)
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
                    # The worker's death does not cause this, because the supervisor also holds
                    # the worker's end of the socket.
                    raise ProtocolError("the end of its output")
                if not messages:
                    break
                handle_each(messages, handle)
                if not link.runs:
                    break  # without a run, the worker hardly sends anything more
        except ProtocolError as error:
            self._loop.forget(link.channel.fileno())
            link.trouble = f"it was killed because it sent nonsense: {error}"
            link.kill()

    def _handle_worker(self, link: WorkerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.RESULT:
            self._ended(link, message)
        elif kind is Kind.LOGGED and not message.fds:
            self._log.relay(message)
        elif kind is Kind.LOADED and not lacks_descriptor(message):
            self.workers.loaded_files.update(read_loaded(message))
        elif kind is Kind.TORN_DOWN and link.is_ready and not message.fds:
            self._tell(events.TornDown(link.number, message.id > 0))
        elif link.is_ready:
            refuse(message, "from a worker that has started")  # it would affect all workers
        elif kind is Kind.INITIALIZER_FAILED and self.fork_servers.of(link.number).is_leaving:
            close_all(message.fds)  # with the new preload, the initializer may succeed
        elif kind is Kind.INITIALIZER_FAILED:
            payload = of_message(message).spill()
            self._tell(events.InitializerFailed(message.flag, payload))
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.READY:
            link.is_ready = True
            link.importing = ""
            if message.id:
                self._tell(events.IdleMemory(message.id))
            self._tell(events.WorkerReady(link.number))
        elif kind is Kind.IMPORTING:
            link.importing = message.body.decode(errors="replace")
        elif kind is Kind.PRELOAD_FAILED:
            self._preload_raised(self.fork_servers.of(link.number), message)
        else:
            refuse(message, "from a worker")

    def _ended(self, link: WorkerLink, result: Message) -> None:
        if self._deaths.evidence(link).verdict is not None:
            # The result came too late: the run has exceeded its limit, and fails for that.
            close_all(result.fds)
            return
        if not link.is_ready or link.runs[:1] != [result.id]:
            refuse(result, f"of {result.id}, which worker {link.number} does not run")
        self._limit_watch.forget(link.number)
        run = self._end_output(link, has_output=bool(result.flag & HAS_OUTPUT))
        link.note_served(run.name)
        self._tell(events.RunEnded(link.number, result))

    def _crashed(self, worker: WorkerId) -> None:
        self._tell(events.WorkerCrashing(worker))

    def _over_limit(self, link: WorkerLink, run: RunId, verdict: Verdict) -> None:
        if self._deaths.evidence(link).crash is None:
            self._tell(events.OverLimit(link.number, run, verdict))

    def _hear_last_words(self, link: WorkerLink) -> None:
        self._loop.forget(link.channel.fileno())
        try:
            handle_each(link.last_words(), lambda message: self._handle_worker(link, message))
        except ProtocolError as error:
            link.trouble = f"it sent nonsense: {error}"

    def _preload_raised(self, server: ForkServerLink, message: Message) -> None:
        if server.is_leaving:
            return  # the next fork server may succeed
        body = read_json(message.body)
        why = deaths.preload_raised(str(body.get("module")), str(body.get("text")))
        self._tell(events.PreloadFailed(why))

    def _preload_died(self, why: Failure | None) -> None:
        if why is not None:
            self._tell(events.PreloadFailed(why))

    def _worker_exited(self, message: Message) -> None:
        link = self.workers.get(message.id)
        body = read_json(message.body)
        exitcode = body.get("exitcode")
        if link is None or not isinstance(exitcode, int | None):
            refuse(message, "of no worker")
        self._hear_last_words(link)
        last_started = link.status.job
        run = self.sent_runs.get(last_started)
        why = self._deaths.of_worker(link, exitcode, body, 1 if run is None else run.attempt)
        if link.importing and not self.fork_servers.of(link.number).is_leaving:
            self._preload_died(deaths.of_preload(why, link.importing))
        if link.runs[:1] == [last_started]:
            self._end_attempt(link)
        self._forget(link)
        end = "has ended" if why.exitcode == 0 else f"has died, exit code {why.exitcode}"
        self._log.debug(f"worker {link.number} (pid {link.pid}) {end}")
        self._tell(events.WorkerLost(link.number, last_started, why))

    def _end_attempt(self, link: WorkerLink) -> None:
        """The worker has died while it ran its first run, which may run again."""
        run = self._end_output(link)
        run.attempt += 1

    def _end_output(self, link: WorkerLink, *, has_output: bool = True) -> Run:
        """Note that the worker's first run has ended, and pass on the end of its output."""
        id = link.runs[0]
        tail = link.run_ended(has_output=has_output)
        run = self.sent_runs.pop(id)
        self._log_dir.end(id)
        if tail or run.log is not None:  # an empty tail replaces the output of an earlier attempt
            self._tell(events.RunOutput(id, tail))
        return run

    # The fork server

    def _handle_fork_server(self, server: ForkServerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.WORKER_STARTED and len(message.fds) == 1 and message.id in self.workers:
            self._worker_started(self.workers[message.id], message)
        elif kind is Kind.LOADED and not lacks_descriptor(message):
            server.loaded_files += read_loaded(message)
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.WORKER_EXITED:
            self._worker_exited(message)
        elif kind is Kind.LOGGED:
            self._log.relay(message)
        elif kind is Kind.IMPORTING:
            server.importing = message.body.decode(errors="replace")
        elif kind is Kind.READY:
            self.fork_servers.note_ready(server)
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
        self._crash_watch.read(link)  # the worker may already have crashed

    def _fall_back_to_spawn(self, server: ForkServerLink, reason: str) -> None:
        if server is not self.fork_servers.current:
            return  # that fork server is about to end
        self._log.warn(reason)
        self.fork_servers.spawn_from_now_on()
        server.is_leaving = True  # it has lost nothing: the rules start its workers elsewhere
        self._fork_server_lost(server)

    def _fork_server_lost(self, server: ForkServerLink) -> None:
        exitcode, text = self.fork_servers.bury(server)
        tell = self._log.debug if server.is_leaving else self._log.warn
        tell(f"the fork server (pid {server.pid}) has ended, exit code {exitcode}")
        for number in sorted(server.workers):
            link = self.workers[number]
            self._hear_last_words(link)
            if link.runs[:1] == [link.status.job]:
                self._end_attempt(link)
        why = deaths.of_fork_server(exitcode, server.importing, text)
        if not (server.is_ready or server.is_leaving):
            self._preload_died(deaths.of_preload(why, server.importing))
        links = [self.workers[number] for number in sorted(server.workers)]
        last_started = {link.number: link.status.job for link in links}
        for link in links:
            self._forget(link)
        self.fork_servers.drop(server)
        why_no_worker = deaths.without_worker(why)
        self._tell(events.ForkServerLost(last_started, why, why_no_worker, server.is_leaving))
