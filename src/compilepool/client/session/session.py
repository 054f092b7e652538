"""The life of a pool: open, submit, close, terminate.

The objects of a session know each other in one direction, in the order in which they are made:

    UnfinishedCalls   the table of calls; its lock guards the session
    SupervisorLink    the current supervisor, to which calls and other messages are sent
    FailedCalls       ends calls with errors, after a crash folder is made
    Dumps, Views      ask the supervisor, and wait for its answers
    Processes         what the user wants of the processes, and whether they have started
    Statistics        what runs, and what was done
    Receiver          hands the supervisor's messages to all of these; the reader thread runs it
    Supervision       starts supervisors, outlives them, and ends them
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from compilepool.any_process.identity import in_toplevel_process
from compilepool.client.connection.setup import PoolSetup, max_workers_of
from compilepool.client.future import CompileFuture, abandon
from compilepool.client.options import PoolOptions
from compilepool.client.session.at_exit import end_with_process
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.failed_calls import FailedCalls
from compilepool.client.session.observers import Observers
from compilepool.client.session.packing import not_sent, pack_call, pack_startup
from compilepool.client.session.processes import Processes, wait_until_warm
from compilepool.client.session.questions import Dumps, Views
from compilepool.client.session.receiving import Receiver
from compilepool.client.session.sending import SupervisorLink
from compilepool.client.session.statistics import Statistics
from compilepool.client.session.supervision import Supervision
from compilepool.client.session.threads import PoolThreads
from compilepool.client.session.usable import check_usable
from compilepool.client.terms import check_memory_limit
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

if TYPE_CHECKING:
    from compilepool.observe.observer import RunningJob

_KEEP_S = 10.0  # for crash folders that are being written


class Session:
    """What a `CompilePool` does, without the pool object, whose garbage collection ends it.

    It is the `Owner` of its futures. The lock of its table of calls guards all its state, except
    the table: calls are taken from that without the lock.

    Args:
        options: the pool's.
        setup: what the processes are made like; None: like this process when they start.
        startup: what every worker starts with, in place of what the options say. Taken over.
        on_start: another process unpickles what jobs return, so futures get a
            `outcomes.PackedOutcome`; and this is called with the future of each job that begins.

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
        on_start: Callable[[CompileFuture[Any]], object] | None = None,
    ) -> None:
        self._options = options
        self.max_workers = max_workers_of(options)
        # A worker that imports a module with a pool shows nothing, and writes to no file of it.
        is_of_use = in_toplevel_process()
        self._observers = Observers(options, is_of_use=is_of_use)
        try:
            startup = pack_startup(options) if startup is None and is_of_use else startup
        except BaseException:
            self._observers.close()
            raise
        self._owner_pid = os.getpid()
        self._threads = PoolThreads()
        self._calls = UnfinishedCalls(self._observers.all, options.seed)
        self.link = SupervisorLink(self._calls, self.max_workers)
        send = self.link.send
        self._failed = FailedCalls(self._calls, self.link, self._threads.background)
        self.dumps = Dumps(self._calls, send, self._threads)
        self._views = Views(self._calls, send, self._threads)
        self.processes = Processes(self._calls, send)
        self.statistics = Statistics(self._calls, self._observers.counters, self._views, self.link)
        receiver = Receiver(
            self._calls,
            self.link,
            self._failed,
            self.dumps,
            self._views,
            self.processes,
            options.serializer,
        )
        if on_start is not None:
            receiver.keeps_packed, receiver.on_start = True, on_start
        self._supervision = Supervision(
            options,
            setup,
            startup,
            self._calls,
            self.link,
            self._failed,
            self.processes,
            receiver,
            self._threads,
            self._supervisor_lost,
            self._ended,
        )
        self._observers.sample(self.statistics.sample)
        self._ids = itertools.count(1)
        end_with_process(self)

    # Any thread

    def submit(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        terms: JobTerms = DEFAULT_TERMS,
        flight_key: str | None = None,
    ) -> CompileFuture[Any]:
        """Send a job.

        Args:
            name: its name.
            function: what it calls.
            args: the arguments.
            kwargs: the keyword arguments.
            terms: its terms.
            flight_key: what it has in common with the jobs that may share its run; None: its call
                and arguments, if jobs of this pool may share runs.

        Raises:
            ValueError: its memory limit is less than what a worker takes.
            PoolClosed, SerializationError, CompilePoolError: it was not accepted.
        """
        self._check_open()
        if terms.memory_limit is not None:
            check_memory_limit(name, terms, self.processes.idle_memory)
        serializer = self._options.serializer
        payload = pack_call(name, function, args, kwargs, serializer, self._calls.spares)
        if flight_key is not None or self._options.single_flight:
            from compilepool.client.flights import with_flight

            terms = with_flight(terms, flight_key, payload)
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
        call = None
        try:
            with self._calls.lock:
                call = self._calls.pop(id)
                if call is not None:
                    with contextlib.suppress(OSError):  # then it runs on, and nobody hears of it
                        self.link.send(Message(Kind.CANCEL, id))
        finally:
            if call is not None:
                call.end_cancelled()
        return call is not None

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
            reader = self._supervision.close(cancel_futures=cancel_futures)
        if reader is None:
            self._report_end()
        if wait and not self._threads.is_here():
            if reader is not None:
                reader.join()
            self._threads.background.wait(_KEEP_S)

    def let_go(self) -> None:
        """End after the last job, because nobody has the pool any more."""
        # When the interpreter is torn down, its threads are gone, and may have held the lock.
        if not sys.is_finalizing():
            self.shutdown(wait=False)

    def terminate(self, *, wait: bool = True) -> None:
        """Accept no more jobs, kill those that run, and end the processes; within a bound."""
        if os.getpid() == self._owner_pid and self._supervision.terminate(wait=wait):
            self._report_end()

    def kill_workers(self) -> None:
        """As `terminate`, but cancel the jobs that are not known to run."""
        if os.getpid() == self._owner_pid:
            self._supervision.is_closing = True  # first: later jobs would not be cancelled
            self._failed.cancel_waiting()
            self.terminate()

    def abandon_after_fork(self) -> None:
        """In a child forked by the user: let go of everything. Locks may be held for ever.

        A pool that has started nothing has nothing to let go of, and can be used in the child, too.
        """
        futures = self._calls.abandon()
        self._failed.abandon()
        self.processes.warmth.abandon()
        if self._supervision.has_started:
            self._supervision.abandon()
        else:
            self._owner_pid = os.getpid()
        for future in futures:
            abandon(future)

    # Under the lock

    def _check_open(self) -> None:
        is_closing = self._supervision.is_closing
        check_usable("CompilePool", self._owner_pid, is_closing=is_closing)

    def _start(self) -> None:
        self._check_open()
        if self.link.supervisor is None:
            self._observers.counters.pool_starts()
            self._supervision.start()

    def _supervisor_lost(self, is_followed: bool) -> None:
        self.statistics.supervisors_lost += not self._supervision.is_closing
        self.processes.warmth.lost()
        self._views.supervisor_lost()
        if not is_followed:
            self.dumps.ended()

    # The reader thread, or whoever ends the pool

    def _ended(self) -> None:
        self._threads.background.wait(_KEEP_S)
        self._report_end()

    def _report_end(self) -> None:
        self.statistics.report_at_end()
        self._observers.close()
