"""The processes below the supervisor: the fork server and the workers."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from compilepool.supervisor.forkserver_link import ForkServerLink
from compilepool.supervisor.loop import Loop
from compilepool.supervisor.worker_link import WorkerLink
from compilepool.wire import kernel
from compilepool.wire.channel import close_all, handle_each, refuse
from compilepool.wire.config import PoolConfig
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import Kind, Message, ProtocolError, read_json
from compilepool.wire.payloads import Payload, of_message

_WORKERS_EXIT_S = 1.0
_ORDERLY_EXIT_S = 2.0
_SWEEP_S = 0.3
_LAST_GASP_S = 0.3  # from the end of its output until its exit, of a process that failed
_KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)


class Listener(Protocol):
    """Who is told what happens to the crew."""

    def worker_ready(self, worker: int) -> None:
        """It has started."""

    def job_ended(self, worker: int, result: Message) -> None:
        """It sent the RESULT of a job. Takes over the message's descriptors.

        Raises:
            ProtocolError: that job was not its to end.
        """

    def worker_lost(self, worker: int, last_started: int, why: Failure) -> None:
        """It is dead; all that it had sent has been heard. 0: it has started no job."""

    def crew_lost(
        self, last_started: Mapping[int, int], why: Failure, why_no_worker: Failure
    ) -> None:
        """The fork server is dead, and all workers with it; see `Scheduler.fork_server_lost`."""

    def preload_failed(self, why: Failure) -> None:
        """No worker can be started, ever."""

    def initializer_failed(self, outcome: int, payload: Payload) -> None:
        """Likewise; the payload is that of a RESULT with this outcome."""

    def warn(self, text: str) -> None:
        """The user should know."""


class Crew:
    """The fork server and the workers of one pool.

    The death of a worker is heard from the fork server, its parent, which has then killed what the
    worker left; the death of the fork server from its pidfd.
    """

    def __init__(
        self,
        loop: Loop,
        listener: Listener,
        config: PoolConfig,
        client_pidfd: int,
        startup_fds: tuple[int, ...],
        fd_limit: int,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._config = config
        self._client_pidfd = client_pidfd
        self._startup_fds = startup_fds
        self._fd_limit = fd_limit
        self._fork_server: ForkServerLink | None = None
        self._workers: dict[int, WorkerLink] = {}
        self._unsent_to: set[int] = set()

    # What the scheduler wants

    def start_fork_server(self) -> ForkServerLink:
        """Start the fork server. Raises OSError if that fails."""
        self._fork_server = ForkServerLink(
            self._loop, self._config, self._client_pidfd, self._fd_limit, self._read_fork_server
        )
        return self._fork_server

    def start_worker(self, number: int) -> None:
        """Start a worker. Raises OSError if that fails, and then there is none."""
        server = self._fork_server or self.start_fork_server()
        link = WorkerLink(number)
        self._workers[number] = link
        self._loop.watch(link.channel.fileno(), lambda: self._read_worker(link))
        try:
            self._request(server, link)
        except OSError:
            del self._workers[number]
            self._loop.forget(link.channel.fileno())
            link.close()
            raise

    def send_job(self, worker: int, job: int, payload: Payload) -> None:
        """Put a job into the worker's socket."""
        link = self._workers[worker]
        self._send(link, lambda: link.send_job(job, payload))

    @property
    def has_unsent(self) -> bool:
        """Whether `send_rest` should be called before long."""
        return bool(self._unsent_to)

    def send_rest(self) -> None:
        """Put the jobs into the workers' sockets that could not be put there at once."""
        for worker in list(self._unsent_to):
            self._unsent_to.discard(worker)
            if worker in self._workers:
                link = self._workers[worker]
                self._send(link, link.send_rest)

    def take_back(self, worker: int) -> list[int]:
        """Take the unread jobs from the worker's socket; returns their numbers."""
        # One that could not be started, as the scheduler is about to learn, has no socket.
        return self._workers[worker].take_back() if worker in self._workers else []

    def kill_worker(self, worker: int) -> None:
        """Kill the worker; `worker_lost` follows."""
        self._workers[worker].kill()

    def dismiss(self) -> None:
        """Let idle workers, then the fork server, exit in order; for a while."""
        if self._fork_server is None or not self._fork_server.is_ready:
            return  # it neither has workers nor listens
        for link in self._workers.values():
            link.end_input()
        deadline = time.monotonic() + _WORKERS_EXIT_S
        while self._workers and self._fork_server and (left := deadline - time.monotonic()) > 0:
            self._loop.run_once(left)
        if self._fork_server is not None:
            self._fork_server.finish(_ORDERLY_EXIT_S)

    def end(self) -> None:
        """Kill and reap everything."""
        if self._fork_server is not None:
            if self._fork_server.is_ready:
                # It does so by itself, and would if this process were killed meanwhile. Killed
                # first, it would leave all that jobs have started to this process alone.
                self._fork_server.finish(_SWEEP_S)
            self._fork_server.bury()
        kernel.sweep()

    def _send(self, link: WorkerLink, send: Callable[[], bool]) -> None:
        try:
            if not send():
                self._unsent_to.add(link.number)
        except OSError as error:
            link.trouble = f"the job could not be sent to it: {error}"
            link.kill()

    def _request(self, server: ForkServerLink, link: WorkerLink) -> None:
        fds: list[int] = []
        try:
            for fd in (*link.fds, *self._startup_fds):
                fds.append(os.dup(fd))
        except OSError:
            close_all(fds)
            raise
        server.send(Message(Kind.START_WORKER, link.number, fds=tuple(fds)))

    # The workers

    def _read_worker(self, link: WorkerLink) -> None:
        try:
            messages = link.channel.receive(wait=False)
            if messages is None:
                # No death: that leaves its end of the socket open here.
                raise ProtocolError("the end of its output")
            handle_each(messages, lambda message: self._handle_worker(link, message))
        except ProtocolError as error:
            self._loop.forget(link.channel.fileno())
            link.trouble = f"it was killed because it sent nonsense: {error}"
            link.kill()

    def _handle_worker(self, link: WorkerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.RESULT:
            link.crash_file.forget()
            self._listener.job_ended(link.number, message)
        elif link.is_ready:
            refuse(message, "from a worker that has started")  # it would concern all workers
        elif kind is Kind.INITIALIZER_FAILED:
            self._listener.initializer_failed(message.flag, of_message(message).spill())
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.READY:
            link.is_ready = True
            link.importing = ""
            self._listener.worker_ready(link.number)
        elif kind is Kind.IMPORTING:
            link.importing = message.body.decode(errors="replace")
        elif kind is Kind.PRELOAD_FAILED:
            self._preload_raised(message)
        else:
            refuse(message, "from a worker")

    def _hear_last_words(self, link: WorkerLink) -> None:
        self._loop.forget(link.channel.fileno())
        try:
            handle_each(link.last_words(), lambda message: self._handle_worker(link, message))
        except ProtocolError as error:
            link.trouble = f"it sent nonsense: {error}"

    def _preload_raised(self, message: Message) -> None:
        body = read_json(message.body)
        module, text = str(body.get("module")), str(body.get("text"))
        self._listener.preload_failed(Failure(Cause.PRELOAD, module=module, text=text))

    def _worker_exited(self, message: Message) -> None:
        link = self._workers.get(message.id)
        body = read_json(message.body)
        exitcode = body.get("exitcode")
        if link is None or not isinstance(exitcode, int | None):
            refuse(message, "of no worker")
        self._hear_last_words(link)
        text = link.trouble or str(body.get("error") or "")
        if not text and exitcode is not None and exitcode < 0 and exitcode != -signal.SIGKILL:
            text = link.crash_file.text()
        if link.importing and exitcode not in _KILLED_FROM_OUTSIDE:
            self._listener.preload_failed(Failure(Cause.PRELOAD, exitcode, link.importing, text))
        last_started = link.crash_file.last_started()
        del self._workers[link.number]
        link.close()
        cause = Cause.CRASH if link.is_ready else Cause.START
        self._listener.worker_lost(link.number, last_started, Failure(cause, exitcode, text=text))

    # The fork server

    def _read_fork_server(self) -> None:
        server = self._fork_server
        if server is None:
            return
        is_dead = server.is_dead  # asked before reading, so that nothing it sent is missed
        messages: list[Message] | None
        try:
            while messages := server.channel.receive(wait=False):
                handle_each(messages, lambda message: self._handle_fork_server(server, message))
                if self._fork_server is not server:
                    return
        except ProtocolError as error:
            print(f"compilepool supervisor: dropped its fork server: {error}", file=sys.stderr)
            messages = None
        if messages is None or is_dead:
            self._fork_server_lost(server)

    def _handle_fork_server(self, server: ForkServerLink, message: Message) -> None:
        kind = message.kind
        if kind is Kind.WORKER_STARTED and len(message.fds) == 1 and message.id in self._workers:
            self._workers[message.id].started(message.fds[0])
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.WORKER_EXITED:
            self._worker_exited(message)
        elif kind is Kind.IMPORTING:
            server.importing = message.body.decode(errors="replace")
        elif kind is Kind.READY:
            server.is_ready = True
            server.importing = ""
        elif kind is Kind.PRELOAD_FAILED:
            self._preload_raised(message)
        elif kind is Kind.UNSAFE_TO_FORK:
            self._fall_back_to_spawn(server, message.body.decode(errors="replace"))
        else:
            refuse(message, "from a fork server")

    def _fall_back_to_spawn(self, server: ForkServerLink, reason: str) -> None:
        self._listener.warn(reason)
        self._config = dataclasses.replace(self._config, start_method="spawn")
        server.bury()
        server.close()
        server = self.start_fork_server()
        for link in self._workers.values():
            self._request(server, link)

    def _fork_server_lost(self, server: ForkServerLink) -> None:
        exitcode, text = server.bury(_LAST_GASP_S)
        # It stays in place for what its workers' last words cause: that must start no new one.
        for link in list(self._workers.values()):
            self._hear_last_words(link)
        why = Failure(Cause.FORK_SERVER, exitcode, server.importing, text)
        if not server.is_ready and exitcode not in _KILLED_FROM_OUTSIDE:
            self._listener.preload_failed(dataclasses.replace(why, cause=Cause.PRELOAD))
        last_started = {
            link.number: link.crash_file.last_started() for link in self._workers.values()
        }
        for link in self._workers.values():
            self._loop.forget(link.channel.fileno())
            link.close()
        self._workers.clear()
        self._fork_server = None
        server.close()
        self._listener.crew_lost(last_started, why, dataclasses.replace(why, cause=Cause.START))
