"""The pool's life: jobs, supervisors that come and go, and the thread that reads from them."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time

from compilepool.client.future import CompileFuture
from compilepool.client.options import PoolOptions
from compilepool.client.session.at_exit import end_with_process
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.observers import Observers
from compilepool.client.session.processes import Staff
from compilepool.client.session.questions import Dumps
from compilepool.client.session.receiving import Inbox
from compilepool.client.session.sending import Outgoing, not_sent, pack_call, pack_startup
from compilepool.client.session.setup import PoolSetup, workers_of
from compilepool.client.session.supervisor_process import SupervisorProcess, end_within_bound
from compilepool.client.terms import check_memory_limit
from compilepool.errors import CompilePoolError, PoolClosed, SupervisorDied
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.text import describe
from compilepool.wire.messages import Kind, Message, Shutdown
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

if TYPE_CHECKING:
    from compilepool.observe.observer import Sample

_BURY_S = 5.0
_TERMINATE_S = 0.5
_KEEP_S = 10.0  # for crash folders that are being written

_log = logging.getLogger(__name__)


class Session:
    """What a `CompilePool` does, without the pool object, whose garbage collection ends it.

    The lock of its job table guards all its state, but for the table, from which jobs are taken
    without.

    Args:
        options: the pool's.
        snapshot: what the processes are made like; None: this process, as it is at the start.
        startup: what every worker starts with, in place of what the options say. Taken over.

    Raises:
        SerializationError: what every worker starts with cannot be pickled.
    """

    def __init__(
        self,
        options: PoolOptions,
        *,
        snapshot: PoolSetup | None = None,
        startup: Payload | None = None,
    ) -> None:
        self._options = options
        self.max_workers = workers_of(options)
        self._observers = Observers(options, self._look)
        try:
            self._startup = pack_startup(options) if startup is None else startup
        except BaseException:
            self._observers.close()
            raise
        self._serializer = options.serializer
        self._snapshot = snapshot
        self._owner_pid = os.getpid()
        self._jobs = UnfinishedCalls(self._observers.all)
        self._supervisor: SupervisorProcess | None = None
        self._outgoing = Outgoing(
            self._jobs,
            self.max_workers,
            lambda: self._supervisor,
            lambda: self._inbox.is_in_callback,
        )
        self._send = self._outgoing.send
        self.dumps = Dumps(self._jobs, self._send)
        self.staff = Staff(
            self._jobs,
            self._observers.counters,
            self._start,
            self._send,
            self._cancel,
            lambda: 0 if self._supervisor is None else self._supervisor.pid,
            self._is_in_callback,
        )
        self._inbox = Inbox(
            self._jobs,
            options.serializer,
            self.dumps,
            self.staff,
            self._send,
            self._outgoing.send_held,
        )
        self._ids = itertools.count(1)
        self._reader: threading.Thread | None = None
        self._is_closing = False
        self._is_terminated = False
        self._is_cancelling = False
        end_with_process(self)

    # Any thread

    def submit(
        self, name: str, call: tuple[Any, ...], terms: JobTerms = DEFAULT_TERMS
    ) -> CompileFuture[Any]:
        """Send a job.

        Raises:
            ValueError: its memory limit is less than what a worker takes.
            PoolClosed, SerializationError, CompilePoolError: it was not accepted.
        """
        self._check_open()
        if terms.memory_limit is not None:
            check_memory_limit(name, terms, self._inbox.idle_memory)
        payload = pack_call(name, call, self._serializer, self._jobs.spares)
        return self.submit_packed(name, payload, terms)

    def submit_packed(
        self, name: str, payload: Payload, terms: JobTerms = DEFAULT_TERMS
    ) -> CompileFuture[Any]:
        """Send a job whose call is packed; takes over the payload.

        Raises:
            PoolClosed, CompilePoolError: it was not accepted.
        """
        id = next(self._ids)
        future: CompileFuture[Any] = CompileFuture(id, name, self.staff)
        future.record.queued = time.time()
        poisoned = self._inbox.poisoned.error(terms.key, name) if terms.key else None
        with self._jobs.lock:
            job = self._jobs.add(id, name, payload, future, terms)
            try:
                if poisoned is not None:
                    self._jobs.pop(id)
                    job.tell_submitted()
                else:
                    self._start()
                    self.staff.job_submitted()
                    job.tell_submitted()
                    # If not, the supervisor has just died; the reader sends the job to the next.
                    job.sends = int(self._outgoing.send_job(id, job))
            except BaseException as error:
                if self._jobs.pop(id) is not None and job.is_told:
                    job.tell_cancelled()
                self._send(Message(Kind.CANCEL, id))
                if isinstance(error, OSError):
                    raise not_sent(name, error) from error
                raise
        if poisoned is not None:
            job.end_with_error(poisoned)
        return future

    def forget(self, key: str) -> None:
        """Let jobs of this key run again."""
        self._inbox.poisoned.forget(key)

    def shutdown(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end the processes when those accepted have ended."""
        if os.getpid() != self._owner_pid:
            return
        with self._jobs.lock:
            self._is_closing = True
            self._is_cancelling |= cancel_futures
            self._send_closing()
            reader = self._reader
            if reader is None:
                self._drop_startup()
                self.staff.report_at_end()
                self._observers.close()
        if wait and not self._is_in_callback():
            if reader is not None:
                reader.join()
            self._inbox.wait_for_folders(_KEEP_S)

    def terminate(self, *, wait: bool = True) -> None:
        """Accept no more jobs, kill those that run, and end the processes; within a bound."""
        if os.getpid() != self._owner_pid:
            return
        self._is_terminated = True
        self._is_closing = True
        supervisor, reader = self._supervisor, self._reader
        if supervisor is not None:
            supervisor.request_end()
        if not wait or self._is_in_callback():
            return
        if supervisor is not None and reader is not None:
            end_within_bound(supervisor, reader, self._jobs.lock, _TERMINATE_S)
        self._inbox.wait_for_folders(_TERMINATE_S)
        if reader is None or not reader.is_alive():
            self.staff.report_at_end()
        self._observers.close()

    def abandon_after_fork(self) -> None:
        """In a child forked by the user: let go of everything, and disturb nothing.

        The other threads are not in this process, so their locks may be held for ever.
        """
        futures = self._jobs.abandon()
        supervisor, self._supervisor, self._reader = self._supervisor, None, None
        if supervisor is not None:
            supervisor.close()
        self._is_closing = True
        for future, name in futures:
            # Nothing is imported here: another thread may have been at it, which is not in this
            # process, and so never be done.
            future._abandon(_of_another_process(name))
        self._inbox.poisoned.abandon()
        self.staff.warmth.abandon()
        if self._inbox.keeper is not None:
            self._inbox.keeper.abandon()
        self._drop_startup()

    def _is_in_callback(self) -> bool:
        """Whether one of the pool's threads calls this, which must not wait for itself."""
        return self._inbox.is_keeping_here() or self._reader is threading.current_thread()

    def _look(self) -> Sample:
        return self.staff.look()

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
        self._check_open()
        if self._supervisor is not None:
            return
        self._observers.counters.pool_starts()
        try:
            self._start_supervisor()
            # A daemon: interpreter exit must not wait for it, but end it (`terminate`).
            self._reader = threading.Thread(
                target=self._read, args=(self._supervisor,), name="compilepool", daemon=True
            )
            self._reader.start()
        except BaseException as error:
            self._drop_supervisor()
            if isinstance(error, OSError | RuntimeError):  # RuntimeError: no more threads
                raise CompilePoolError(
                    f"the pool's processes could not be started: {error}"
                ) from error
            raise

    def _start_supervisor(self) -> None:
        if self._snapshot is None:
            self._snapshot = PoolSetup(self._options)
        snapshot = self._snapshot
        self._supervisor = SupervisorProcess(snapshot.env, snapshot.python_flags)
        # All that follows is done while that starts.
        if self._options.keep_crashes and self._inbox.keeper is None:
            from compilepool.client.session.crash_keeper import CrashKeeper

            self._inbox.keeper = CrashKeeper(snapshot, self._startup, self._inbox.end_failed)
        payload = snapshot.config.payload()
        try:
            message = payload.message(Kind.CONFIGURE)
            startup = () if self._startup is None else (self._startup.fd,)
            self._send(message._replace(fds=message.fds + startup))
        finally:
            payload.close()

    def _drop_supervisor(self) -> None:
        supervisor, self._supervisor, self._reader = self._supervisor, None, None
        if supervisor is not None:
            supervisor.kill()
            supervisor.bury(_BURY_S)
            supervisor.close()

    def _send_closing(self) -> None:
        if self._is_cancelling:
            self._send(Message(Kind.CANCEL_QUEUED))
        if self._is_closing:
            how = Shutdown.NOW if self._is_terminated else Shutdown.DRAIN
            self._send(Message(Kind.SHUTDOWN, flag=how))

    def _drop_startup(self) -> None:
        self._jobs.spares.close()
        if self._startup is not None:
            self._startup.close()
            self._startup = None
        if self._inbox.keeper is not None:
            self._inbox.keeper.close()

    def _cancel(self, id: int) -> bool:
        with self._jobs.lock:
            job = self._jobs.pop(id)
            if job is None:
                return False
            self._send(Message(Kind.CANCEL, id))
            job.tell_cancelled()
            return True

    # The reader thread

    def _read(self, supervisor: SupervisorProcess | None) -> None:
        try:
            while supervisor is not None:
                supervisor = self._outlive(supervisor)
            if self._is_closing:
                self._inbox.wait_for_folders(_KEEP_S)
                self.staff.report_at_end()
                self._observers.close()
        except BaseException as error:  # noqa: BLE001 - nobody else would end the futures
            _log.exception("the pool's reader failed")
            with self._jobs.lock:
                failed = self._fail_all(f"its pool's reader failed: {describe(error)}")
                self._drop_supervisor()
            for job, reason in failed:
                job.end_with_error(reason)

    def _outlive(self, supervisor: SupervisorProcess) -> SupervisorProcess | None:
        """Read from a supervisor until it is dead. Returns the next one, if there is work."""
        try:
            self._inbox.read_from(supervisor)
        except Exception:  # noqa: BLE001 - it is logged, and mended
            _log.exception("cannot read from the supervisor, which is replaced")
            supervisor.kill()
        exitcode = supervisor.bury(_BURY_S)
        failed, successor = self._replace(supervisor, exitcode)
        for job, reason in failed:
            job.end_with_error(reason)
        return successor

    def _replace(
        self, dead: SupervisorProcess, exitcode: int | None
    ) -> tuple[list[tuple[Call, CompilePoolError]], SupervisorProcess | None]:
        """After a supervisor's end: what fails with it, and the next one if there is work."""
        from compilepool.wire.job_snapshot import JobSnapshot

        failed: list[tuple[Call, CompilePoolError]] = []
        with self._jobs.lock:
            self._supervisor = None  # first: a child forked meanwhile must not close it again
            dead.close()
            self.staff.supervisor_lost(was_wanted=self._is_closing)
            error: CompilePoolError
            for id, job in self._jobs.items():
                from compilepool.client.reports import errors as failures

                if self._is_terminated:
                    error = failures.ended_with_pool(job.name)
                elif job.sends > self._options.resubmit:
                    error = failures.supervisor_died(
                        job.name, exitcode, was_resubmitted=self._options.resubmit
                    )
                else:
                    continue
                self._jobs.pop(id)
                failed.append((job, error))
            if self._jobs:
                _log.warning("supervisor died; %d unfinished jobs are run again", len(self._jobs))
                failed += self._resend()
            if self._supervisor is None:
                self._reader = None
                self.dumps.ended(JobSnapshot("ended"))
                if self._is_closing:
                    self._drop_startup()
            return failed, self._supervisor

    def _resend(self) -> list[tuple[Call, CompilePoolError]]:
        try:
            self._start_supervisor()
            for id, job in self._jobs.items():
                job.future.record.log = ""  # of the run that died
                job.sends += 1  # even if this supervisor is dead already: there is an end to it
                self._outgoing.send_job(id, job)
            self._outgoing.send_held()
            self.staff.resend()
            self._send_closing()
        except OSError as error:
            self._drop_supervisor()
            return self._fail_all(f"its supervisor died, and no other could be started: {error}")
        return []

    def _fail_all(self, why: str) -> list[tuple[Call, CompilePoolError]]:
        failed: list[tuple[Call, CompilePoolError]] = []
        for id, job in self._jobs.items():
            self._jobs.pop(id)
            failed.append((job, SupervisorDied(f"job {job.name!r} is lost: {why}")))
        return failed


def _of_another_process(job: str) -> PoolClosed:
    """The error for a future in a process that was forked from the one that submitted its job."""
    return PoolClosed(
        f"job {job!r} belongs to the process that submitted it, which this one was forked from;"
        " make a new pool here"
    )
