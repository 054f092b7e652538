"""The pool's life: jobs, supervisors that come and go, and the thread that reads from them."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import select
import threading
import weakref
from typing import Any

from compilepool.client import failures
from compilepool.client.future import CompileFuture
from compilepool.client.launcher import Snapshot, SupervisorProcess
from compilepool.errors import CompilePoolError, PoolClosed, SerializationError, SupervisorDied
from compilepool.options import PoolOptions
from compilepool.wire.channel import close_all, handle_each, refuse
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Kind, Message, ProtocolError, Shutdown
from compilepool.wire.payloads import Payload, of_message
from compilepool.wire.serializers import dump_payload

_MAX_SENDS = 2  # a job is sent again once
_MAX_HELD_FDS = 64
_BURY_S = 5.0
_TERMINATE_S = 0.5

_log = logging.getLogger("compilepool")


class _Job:
    __slots__ = ("future", "name", "payload", "sends")

    def __init__(self, name: str, payload: Payload, future: CompileFuture[Any]) -> None:
        self.name = name
        self.payload = payload
        self.future = future
        self.sends = 0


class Session:
    """What a `CompilePool` does, without the pool object, whose garbage collection ends it.

    One lock guards all state. Futures get their results, and so run their callbacks, outside it.

    Args:
        options: the pool's.
        startup: what every worker starts with, a memfd payload; None if nothing.
    """

    def __init__(self, options: PoolOptions, startup: Payload | None) -> None:
        self._options = options
        self._startup = startup
        self._serializer = options.serializer
        self._snapshot: Snapshot | None = None
        self._owner_pid = os.getpid()
        self._lock = threading.RLock()
        self._jobs: dict[int, _Job] = {}
        self._ids = itertools.count(1)
        self._held_fds = 0
        self._supervisor: SupervisorProcess | None = None
        self._reader: threading.Thread | None = None
        self._warned: set[str] = set()
        self._is_closing = False
        self._is_terminated = False
        self._is_cancelling = False
        _sessions.add(self)

    # Any thread

    def submit(self, name: str, call: tuple[Any, ...]) -> CompileFuture[Any]:
        """Send a job.

        Raises:
            PoolClosed, SerializationError, CompilePoolError: it was not accepted.
        """
        self._check_open()
        try:
            payload = dump_payload(call, self._serializer)
        except Exception as error:
            raise SerializationError(
                f"job {name!r} could not be pickled: {type(error).__name__}: {error};"
                " its function and arguments must be picklable, by cloudpickle if not by pickle"
            ) from error
        id = next(self._ids)
        future: CompileFuture[Any] = CompileFuture(functools.partial(self._cancel, id))
        with self._lock:
            if payload.fd >= 0 and self._held_fds >= _MAX_HELD_FDS:
                payload = payload.spill()
            self._held_fds += payload.fd >= 0
            job = self._jobs[id] = _Job(name, payload, future)
            try:
                self._check_open()
                self._start()
                self._send_job(id, job)
            except BaseException:
                self._forget(id, job)
                self._send(Message(Kind.CANCEL, id))
                raise
        return future

    def warm_up(self) -> None:
        """Start everything that a job needs."""
        with self._lock:
            self._check_open()
            self._start()
            self._send(Message(Kind.WARM_UP))

    def shutdown(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end the processes when those accepted have ended."""
        if os.getpid() != self._owner_pid:
            return
        with self._lock:
            self._is_closing = True
            self._is_cancelling |= cancel_futures
            self._send_closing()
            reader = self._reader
            if reader is None:
                self._drop_startup()
        if wait and reader is not None and reader is not threading.current_thread():
            reader.join()

    def terminate(self, *, wait: bool = True) -> None:
        """Accept no more jobs, kill those that run, and end the processes."""
        if os.getpid() != self._owner_pid:
            return
        with self._lock:
            self._is_terminated = True
            self._is_closing = True
            self._send_closing()
            supervisor, reader = self._supervisor, self._reader
        if not wait or supervisor is None or reader is None or reader is threading.current_thread():
            return
        reader.join(_TERMINATE_S)
        with self._lock:
            if self._supervisor is supervisor:
                supervisor.kill()
        reader.join(_BURY_S)

    def abandon_after_fork(self) -> None:
        """In a child forked by the user: let go of everything, and disturb nothing.

        The other threads are not in this process, so their locks may be held for ever.
        """
        self._lock = threading.RLock()
        supervisor, self._supervisor, self._reader = self._supervisor, None, None
        if supervisor is not None:
            supervisor.close()
        self._is_closing = True
        for id, job in list(self._jobs.items()):
            self._forget(id, job)
            job.future._renew_lock()
            job.future.set_exception(
                PoolClosed(
                    f"job {job.name!r} belongs to the process that submitted it, which this one"
                    " was forked from; make a new pool here"
                )
            )
        self._drop_startup()

    # Under the lock

    def _check_open(self) -> None:
        if os.getpid() != self._owner_pid:
            raise PoolClosed(
                "cannot schedule new futures after a fork: this pool belongs to process"
                f" {self._owner_pid}, which this one was forked from; make a new pool here"
            )
        if self._is_closing:
            raise PoolClosed("cannot schedule new futures after shutdown; make a new pool")

    def _start(self) -> None:
        if self._supervisor is not None:
            return
        try:
            self._start_supervisor()
        except OSError as error:
            raise CompilePoolError(f"the supervisor could not be started: {error}") from error
        # A daemon: interpreter exit must not wait for it, but end it (`terminate`).
        self._reader = threading.Thread(
            target=self._read, args=(self._supervisor,), name="compilepool", daemon=True
        )
        self._reader.start()

    def _start_supervisor(self) -> None:
        if self._snapshot is None:
            self._snapshot = Snapshot(self._options)
        self._supervisor = SupervisorProcess(self._snapshot.env)
        config = self._snapshot.config.payload()
        try:
            message = config.message(Kind.CONFIGURE)
            startup = () if self._startup is None else (self._startup.fd,)
            self._send(message._replace(fds=message.fds + startup))
        finally:
            config.close()

    def _send_job(self, id: int, job: _Job) -> None:
        message = job.payload.message(Kind.SUBMIT, id)
        try:
            if self._send(message):
                job.sends += 1
        finally:
            close_all(set(message.fds) - {job.payload.fd})

    def _send_closing(self) -> None:
        if self._is_cancelling:
            self._send(Message(Kind.CANCEL_QUEUED))
        if self._is_closing:
            how = Shutdown.NOW if self._is_terminated else Shutdown.DRAIN
            self._send(Message(Kind.SHUTDOWN, flag=how))

    def _send(self, message: Message) -> bool:
        """False if the supervisor is gone; the reader sees that as well, and sends jobs again."""
        if self._supervisor is None:
            return False
        try:
            return self._supervisor.channel.send(message)
        except ConnectionError:
            return False

    def _forget(self, id: int, job: _Job) -> None:
        self._jobs.pop(id, None)
        if job.payload.fd >= 0:
            self._held_fds -= 1
        job.payload.close()

    def _drop_startup(self) -> None:
        if self._startup is not None:
            self._startup.close()
            self._startup = None

    def _cancel(self, id: int) -> bool:
        with self._lock:
            job = self._jobs.get(id)
            if job is None:
                return False
            self._forget(id, job)
            job.future._mark_cancelled()
            self._send(Message(Kind.CANCEL, id))
            return True

    # The reader thread

    def _read(self, supervisor: SupervisorProcess | None) -> None:
        while supervisor is not None:
            try:
                self._read_from(supervisor)
            except ProtocolError as error:
                _log.error("the supervisor sent nonsense and is replaced: %s", error)
                supervisor.kill()
            exitcode = supervisor.bury(_BURY_S)
            failed, supervisor = self._replace(supervisor, exitcode)
            for job, reason in failed:
                job.future._end_with_error(reason)

    def _read_from(self, supervisor: SupervisorProcess) -> None:
        """Handle messages until the supervisor is gone."""
        poll = select.poll()
        poll.register(supervisor.channel.fileno(), select.POLLIN)
        # Some other process may hold a copy of the supervisor's socket, and so hide its end.
        poll.register(supervisor.pidfd, select.POLLIN)
        while True:
            is_dead = any(fd == supervisor.pidfd for fd, _ in poll.poll())
            while messages := supervisor.channel.receive(wait=False):
                handle_each(messages, self._handle)
                del messages  # a result must not live on here
            if messages is None or is_dead:
                return

    def _handle(self, message: Message) -> None:
        kind = message.kind
        if kind is Kind.RESULT:
            payload = of_message(message)
            job = self._end(message.id)
            if job is None:
                payload.close()  # cancelled meanwhile
            else:
                self._resolve(job, message.flag, payload)
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.STARTED:
            with self._lock:
                job = self._jobs.get(message.id)
                if job is not None:
                    job.future._mark_running()
        elif kind is Kind.FAILED:
            failure = Failure.of_message(message)
            job = self._end(message.id)
            if job is not None:
                job.future._end_with_error(failures.error_of(failure, job.name))
        elif kind is Kind.CANCELLED:
            with self._lock:
                job = self._end(message.id)
                if job is not None:
                    job.future._mark_cancelled()
            if job is not None:
                job.future._call_back()
        elif kind is Kind.WARNING:
            text = message.body.decode(errors="replace")
            if text not in self._warned:
                self._warned.add(text)
                _log.warning("%s", text)
        else:
            refuse(message, "from a supervisor")

    def _end(self, id: int) -> _Job | None:
        with self._lock:
            job = self._jobs.get(id)
            if job is not None:
                self._forget(id, job)
            return job

    def _resolve(self, job: _Job, outcome: int, payload: Payload) -> None:
        error: BaseException | None
        try:
            result, error = failures.resolve(outcome, payload, job.name, self._serializer)
        except ProtocolError as reason:
            error = CompilePoolError(f"job {job.name!r}: its outcome is malformed: {reason}")
        if error is not None:
            job.future._end_with_error(error)
        else:
            job.future._end_with_result(result)

    def _replace(
        self, dead: SupervisorProcess, exitcode: int | None
    ) -> tuple[list[tuple[_Job, CompilePoolError]], SupervisorProcess | None]:
        """After a supervisor's end: what fails with it, and the next one if there is work."""
        failed: list[tuple[_Job, CompilePoolError]] = []
        with self._lock:
            dead.close()
            self._supervisor = None
            for id, job in list(self._jobs.items()):
                if self._is_terminated:
                    error: CompilePoolError = PoolClosed(
                        f"job {job.name!r} was ended with its pool, before it had a result"
                    )
                elif job.sends >= _MAX_SENDS:
                    error = SupervisorDied(
                        f"the supervisor died (exit code {exitcode}) under job {job.name!r}, and"
                        " so had the one before; find out what kills it, and submit the job again"
                    )
                else:
                    continue
                self._forget(id, job)
                failed.append((job, error))
            if self._jobs:
                _log.warning("supervisor died; %d unfinished jobs are run again", len(self._jobs))
                failed += self._resend()
            if self._supervisor is None:
                self._reader = None
                if self._is_closing:
                    self._drop_startup()
            return failed, self._supervisor

    def _resend(self) -> list[tuple[_Job, CompilePoolError]]:
        try:
            self._start_supervisor()
            for id, job in self._jobs.items():
                self._send_job(id, job)
            self._send_closing()
        except OSError as error:
            failed: list[tuple[_Job, CompilePoolError]] = []
            for id, job in list(self._jobs.items()):
                self._forget(id, job)
                reason = f"job {job.name!r} lost its supervisor, and no other could be started"
                failed.append((job, SupervisorDied(f"{reason}: {error}")))
            return failed
        return []


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _terminate_all() -> None:
    for session in list(_sessions):
        session.terminate(wait=False)
    for session in list(_sessions):
        session.terminate()


def _abandon_all_after_fork() -> None:
    for session in list(_sessions):
        session.abandon_after_fork()


atexit.register(_terminate_all)
os.register_at_fork(after_in_child=_abandon_all_after_fork)
