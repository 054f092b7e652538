"""The life of a pool: open, submit, close, terminate; and outlive supervisors that die.

The objects of a session know each other in one direction, in the order in which they are made:

    UnfinishedCalls   the table of calls; its lock guards the session
    SupervisorLink    the current supervisor, to which calls and other messages are sent
    FailedCalls       ends calls with errors, after a crash folder is made
    Dumps, Views      ask the supervisor, and wait for its answers
    Processes         what the user wants of the processes, and whether they have started
    Statistics        what runs, and what was done
    Receiver          hands the supervisor's messages to all of these; the reader thread runs it
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from compilepool.any_process.identity import in_toplevel_process
from compilepool.client.future import CompileFuture, abandon
from compilepool.client.options import PoolOptions
from compilepool.client.session.at_exit import end_with_process
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.failed_calls import FailedCall, FailedCalls
from compilepool.client.session.observers import Observers
from compilepool.client.session.packing import not_sent, pack_call, pack_startup
from compilepool.client.session.processes import Processes, wait_until_warm
from compilepool.client.session.questions import Dumps, Views
from compilepool.client.session.receiving import Receiver
from compilepool.client.session.sending import SupervisorLink
from compilepool.client.session.setup import PoolSetup, max_workers_of
from compilepool.client.session.statistics import Statistics
from compilepool.client.session.supervisor_process import SupervisorProcess, end_within_bound
from compilepool.client.session.threads import PoolThreads
from compilepool.client.terms import check_memory_limit
from compilepool.errors import CompilePoolError, NestedPoolError, PoolClosed
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.text import describe
from compilepool.wire.messages import Kind, Message, Shutdown
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

if TYPE_CHECKING:
    from compilepool.observe.observer import RunningJob

_BURY_S = 5.0
_TERMINATE_S = 0.5
_KEEP_S = 10.0  # for crash folders that are being written

_log = logging.getLogger(__name__)


class Session:
    """What a `CompilePool` does, without the pool object, whose garbage collection ends it.

    It is the `Owner` of its futures. The lock of its table of calls guards all its state, except
    the table: calls are taken from that without the lock.

    Args:
        options: the pool's.
        setup: what the processes are made like; None: like this process when they start.
        startup: what every worker starts with, in place of what the options say. Taken over.

    Attributes:
        max_workers: how many workers may have jobs at once.
        processes: has workers start or go.
        dumps: tells what a job does.
        statistics: tells how the pool is doing.
        link: the way to the supervisor.

    Raises:
        SerializationError: what every worker starts with cannot be pickled.
    """

    def __init__(
        self,
        options: PoolOptions,
        *,
        setup: PoolSetup | None = None,
        startup: Payload | None = None,
    ) -> None:
        self._options = options
        self.max_workers = max_workers_of(options)
        # A worker that imports a module with a pool shows nothing, and writes to no file of it.
        is_of_use = in_toplevel_process()
        self._observers = Observers(options, is_of_use=is_of_use)
        try:
            self._startup = pack_startup(options) if startup is None and is_of_use else startup
        except BaseException:
            self._observers.close()
            raise
        self._setup = setup
        self._owner_pid = os.getpid()
        self._threads = PoolThreads()
        self._calls = UnfinishedCalls(self._observers.all)
        self.link = SupervisorLink(self._calls, self.max_workers)
        send = self.link.send
        self._failed = FailedCalls(self._calls, self.link, self._threads.background)
        self.dumps = Dumps(self._calls, send)
        self._views = Views(self._calls, send, self._threads)
        self.processes = Processes(self._calls, send)
        self.statistics = Statistics(self._calls, self._observers.counters, self._views, self.link)
        self._receiver = Receiver(
            self._calls,
            self.link,
            self._failed,
            self.dumps,
            self._views,
            self.processes,
            options.serializer,
        )
        self._observers.sample(self.statistics.sample)
        self._ids = itertools.count(1)
        self._is_closing = False
        self._is_terminated = False
        self._is_cancelling = False
        end_with_process(self)

    # Any thread

    def submit(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        terms: JobTerms = DEFAULT_TERMS,
    ) -> CompileFuture[Any]:
        """Send a job.

        Raises:
            ValueError: its memory limit is less than what a worker takes.
            PoolClosed, SerializationError, CompilePoolError: it was not accepted.
        """
        self._check_open()
        if terms.memory_limit is not None:
            check_memory_limit(name, terms, self.processes.idle_memory)
        serializer = self._options.serializer
        payload = pack_call(name, function, args, kwargs, serializer, self._calls.spares)
        return self.submit_packed(name, payload, terms)

    def submit_packed(
        self, name: str, payload: Payload, terms: JobTerms = DEFAULT_TERMS
    ) -> CompileFuture[Any]:
        """Send a job whose function and arguments are pickled; takes over the payload.

        Raises:
            PoolClosed, CompilePoolError: it was not accepted.
        """
        id = next(self._ids)
        future: CompileFuture[Any] = CompileFuture(id, name, self)
        future.record.queued = time.time()
        poisoned = self._failed.poisoned.error(terms.key, name) if terms.key else None
        with self._calls.lock:
            call = self._calls.add(id, name, payload, future, terms)
            try:
                if poisoned is not None:
                    self._calls.pop(id)
                    call.tell_submitted()
                else:
                    self._start()
                    self.processes.job_submitted()
                    call.tell_submitted()
                    # If not, the supervisor has just died; the reader sends the call to the next.
                    call.sends = int(self.link.send_call(id, call))
            except BaseException as error:
                if self._calls.pop(id) is not None and call.is_told:
                    call.tell_cancelled()
                self.link.send(Message(Kind.CANCEL, id))
                if isinstance(error, OSError):
                    raise not_sent(name, error) from error
                raise
        if poisoned is not None:
            call.end_with_error(poisoned)
        return future

    def cancel(self, id: int) -> bool:
        """As `Owner.cancel`."""
        with self._calls.lock:
            call = self._calls.pop(id)
            if call is None:
                return False
            self.link.send(Message(Kind.CANCEL, id))
            call.tell_cancelled()
            return True

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """As `Owner.running_among`."""
        return self.statistics.running_among(futures)

    def forget(self, key: str) -> None:
        """Let jobs with this key run again."""
        self._failed.poisoned.forget(key)

    def warm_up(self) -> Future[bool]:
        """Start all workers. Returns the future of `Warmth.expect`.

        Raises:
            PoolClosed, CompilePoolError: the processes cannot be started.
        """
        with self._calls.lock:
            self._start()
            return self.processes.warm_up()

    def first_worker(self) -> Future[bool]:
        """Start all workers. Returns the future of `Warmth.expect_first`; raises as `warm_up`."""
        first = self.processes.warmth.expect_first()
        self.warm_up()
        return first

    def wait_ready(self, timeout_s: float | None) -> bool:
        """As `wait_until_warm`. Raises RuntimeError in a thread of the pool."""
        if self._threads.is_here():
            raise RuntimeError("wait_ready in a callback of a future would wait for itself")
        return wait_until_warm(self.warm_up, timeout_s)

    def shutdown(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end the processes when the accepted jobs have ended."""
        if os.getpid() != self._owner_pid:
            return
        with self._calls.lock:
            self._is_closing = True
            self._is_cancelling |= cancel_futures
            self._send_closing()
            reader = self._threads.reader
            if reader is None:
                self._drop_startup()
                self.statistics.report_at_end()
                self._observers.close()
        if wait and not self._threads.is_here():
            if reader is not None:
                reader.join()
            self._threads.background.wait(_KEEP_S)

    def terminate(self, *, wait: bool = True) -> None:
        """Accept no more jobs, kill those that run, and end the processes; within a bound."""
        if os.getpid() != self._owner_pid:
            return
        self._is_terminated = True
        self._is_closing = True
        supervisor, reader = self.link.supervisor, self._threads.reader
        if supervisor is not None:
            supervisor.request_end()
        if not wait or self._threads.is_here():
            return
        if supervisor is not None and reader is not None:
            end_within_bound(supervisor, reader, self._calls.lock, _TERMINATE_S)
        self._threads.background.wait(_TERMINATE_S)
        if reader is None or not reader.is_alive():
            self.statistics.report_at_end()
        self._observers.close()

    def abandon_after_fork(self) -> None:
        """In a child forked by the user: let go of everything. Locks may be held for ever."""
        futures = self._calls.abandon()
        supervisor, self.link.supervisor, self._threads.reader = self.link.supervisor, None, None
        if supervisor is not None:
            supervisor.close()
        self._is_closing = True
        for future in futures:
            abandon(future)
        self._failed.abandon()
        self.processes.warmth.abandon()
        self._drop_startup()

    # Under the lock

    def _check_open(self) -> None:
        if not in_toplevel_process():
            raise NestedPoolError(
                "a CompilePool takes no jobs inside a worker: they would escape the limits of the"
                " pool that runs this job; call the function directly"
            )
        if os.getpid() != self._owner_pid:
            raise PoolClosed(
                "cannot schedule new futures after a fork: this pool belongs to process"
                f" {self._owner_pid}, which this one was forked from; make a new pool here"
            )
        if self._is_closing:
            raise PoolClosed("cannot schedule new futures after shutdown; make a new pool")

    def _start(self) -> None:
        self._check_open()
        if self.link.supervisor is not None:
            return
        self._observers.counters.pool_starts()
        try:
            supervisor = self._start_supervisor()
            # A daemon: interpreter exit must not wait for it, but end it (`terminate`).
            self._threads.reader = threading.Thread(
                target=self._read, args=(supervisor,), name="compilepool", daemon=True
            )
            self._threads.reader.start()
        except BaseException as error:
            self._drop_supervisor()
            if isinstance(error, OSError | RuntimeError):  # RuntimeError: no more threads
                what = f"the pool's processes could not be started: {error}"
                raise CompilePoolError(what) from error
            raise

    def _start_supervisor(self) -> SupervisorProcess:
        if self._setup is None:
            self._setup = PoolSetup(self._options)
        setup = self._setup
        supervisor = SupervisorProcess(setup.env, setup.python_flags)
        self.link.supervisor = supervisor
        # All that follows is done while that starts.
        if self._options.keep_crashes:
            self._failed.make_folders(setup, self._startup)
        self.link.configure(setup.config.payload(), self._startup)
        return supervisor

    def _drop_supervisor(self) -> None:
        self._threads.reader = None
        self.link.drop(_BURY_S)

    def _send_closing(self) -> None:
        if self._is_cancelling:
            self.link.send(Message(Kind.CANCEL_QUEUED))
        if self._is_closing:
            how = Shutdown.NOW if self._is_terminated else Shutdown.DRAIN
            self.link.send(Message(Kind.SHUTDOWN, flag=how))

    def _drop_startup(self) -> None:
        self._calls.spares.close()
        if self._startup is not None:
            self._startup.close()
            self._startup = None
        self._failed.close()

    # The reader thread

    def _read(self, supervisor: SupervisorProcess | None) -> None:
        try:
            while supervisor is not None:
                supervisor = self._outlive(supervisor)
            if self._is_closing:
                self._threads.background.wait(_KEEP_S)
                self.statistics.report_at_end()
                self._observers.close()
        except BaseException as error:  # noqa: BLE001 - nobody else would end the futures
            _log.exception("the pool's reader failed")
            with self._calls.lock:
                failed = self._failed.take_all(f"its pool's reader failed: {describe(error)}")
                self._drop_supervisor()
            for call, reason in failed:
                call.end_with_error(reason)

    def _outlive(self, supervisor: SupervisorProcess) -> SupervisorProcess | None:
        """Read from a supervisor until it is dead. Returns the next one, if there is work."""
        try:
            self._receiver.read_from(supervisor)
        except Exception:  # noqa: BLE001 - it is logged, and mended
            _log.exception("cannot read from the supervisor, which is replaced")
            supervisor.kill()
        exitcode = supervisor.bury(_BURY_S)
        failed, successor = self._succeed(supervisor, exitcode)
        for call, reason in failed:
            call.end_with_error(reason)
        return successor

    def _succeed(
        self, dead: SupervisorProcess, exitcode: int | None
    ) -> tuple[list[FailedCall], SupervisorProcess | None]:
        """After a supervisor's end: the calls that it takes along, and the next one if needed."""
        from compilepool.wire.job_snapshot import JobSnapshot

        with self._calls.lock:
            self.link.supervisor = None  # first: a child forked meanwhile must not close it again
            dead.close()
            self.statistics.supervisors_lost += not self._is_closing
            self.processes.warmth.lost()
            self._views.supervisor_lost()
            if self._is_terminated:
                failed = self._failed.take_terminated()
            else:
                failed = self._failed.take_lost(exitcode, resubmit=self._options.resubmit)
            if self._calls:
                _log.warning("supervisor died; %d unfinished jobs are run again", len(self._calls))
                failed += self._resend()
            if self.link.supervisor is None:
                self._threads.reader = None
                self.dumps.ended(JobSnapshot("ended"))
                if self._is_closing:
                    self._drop_startup()
            return failed, self.link.supervisor

    def _resend(self) -> list[FailedCall]:
        try:
            self._start_supervisor()
            for id, call in self._calls.items():
                call.future.record.log = ""  # of the run that died
                call.sends += 1  # even if this supervisor is dead already: there is an end to it
                self.link.send_call(id, call)
            self.link.flush()
            self.processes.resend()
            self._send_closing()
        except OSError as error:
            self._drop_supervisor()
            why = f"its supervisor died, and no other could be started: {error}"
            return self._failed.take_all(why)
        return []
