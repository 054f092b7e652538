"""The life of a pool over several nodes, in the program: submit, cancel, close, terminate."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future

from compilepool.any_process.identity import in_toplevel_process
from compilepool.client.future import CompileFuture, abandon
from compilepool.client.job_dump import JobDump
from compilepool.client.options import PoolOptions
from compilepool.client.reports import errors
from compilepool.client.session.at_exit import end_with_process
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.observers import Observers
from compilepool.client.session.packing import pack_call, pack_startup
from compilepool.client.session.usable import check_usable
from compilepool.integrations.ray.cluster import Cluster
from compilepool.integrations.ray.dispatcher import Dispatcher
from compilepool.integrations.ray.endings import Endings
from compilepool.integrations.ray.messages import Packed
from compilepool.integrations.ray.observing import Observing
from compilepool.integrations.ray.roster import Roster
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

if TYPE_CHECKING:
    from compilepool.observe.observer import RunningJob

_END_S = 10.0


class ClusterSession:
    """What a `RayCompilePool` does, without the pool object; as `Session` is for `CompilePool`.

    Args:
        options: the pool's.
        cluster: the connection to Ray.
        remote_args: further arguments of Ray for the actors.

    Attributes:
        observing: tells how the pool is doing.

    Raises:
        SerializationError: what every worker starts with cannot be pickled.
        OSError: the trace cannot be written.
    """

    def __init__(
        self, options: PoolOptions, cluster: Cluster, remote_args: Mapping[str, Any]
    ) -> None:
        self._options = options
        self._owner_pid = os.getpid()
        startup = pack_startup(options)
        self._observers = Observers(options, is_of_use=in_toplevel_process())
        self._calls = UnfinishedCalls(self._observers.all, options.seed)
        roster = Roster(
            cluster,
            for_nodes(options),
            None if startup is None else Packed.of(startup),
            remote_args,
            time.monotonic(),
        )
        self._dispatcher = Dispatcher(
            cluster,
            self._calls,
            Endings(options.serializer),
            roster,
            int(options.resubmit),
            self._ended,
        )
        self.observing = Observing(
            cluster.ray, self._calls, self._observers.counters, self._dispatcher
        )
        self._observers.sample(self.observing.sample)
        self._ids = itertools.count(1)
        self._is_closing = False
        end_with_process(self)

    @property
    def max_workers(self) -> int:
        """The number of jobs that may run at once on the nodes that are up."""
        return sum(link.workers for link in self.observing.links())

    def submit(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        terms: JobTerms = DEFAULT_TERMS,
        flight_key: str | None = None,
    ) -> CompileFuture[Any]:
        """Send a job; see `Session.submit`."""
        self._check_open()
        payload = pack_call(name, function, args, kwargs, self._options.serializer)
        if flight_key is not None or self._options.single_flight:
            from compilepool.client.flights import with_flight

            terms = with_flight(terms, flight_key, payload)
        payload = payload.spill()
        id = next(self._ids)
        future: CompileFuture[Any] = CompileFuture(id, name, self)
        future.record.queued = time.time()
        with self._calls.lock:
            self._check_open()
            call = self._calls.add(id, name, payload, future, terms)
            self._observers.counters.pool_starts()
            call.tell_submitted()
            self._dispatcher.start()
        self._dispatcher.post(functools.partial(self._dispatcher.submitted, id))
        return future

    def cancel(self, id: int) -> bool:
        """As `Owner.cancel`."""
        call = self._calls.pop(id)
        if call is None:
            return False
        self._dispatcher.post(functools.partial(self._dispatcher.cancelled, id))
        call.end_cancelled()
        return True

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """As `Owner.running_among`."""
        return self.observing.running_among(futures)

    def control(self, what: str, *arguments: Any) -> None:
        """Have all nodes do what concerns their pools as a whole: a method of `NodeJobs`."""
        if self._dispatcher.has_started:
            self._dispatcher.post(lambda: self._dispatcher.control(what, *arguments))

    def warm_up(self) -> None:
        """Start the actors and all workers, here and on nodes that join."""
        with self._calls.lock:
            self._check_open()
            self._observers.counters.pool_starts()
            self._dispatcher.start()
        self.control("warm_up")

    def wait_ready(self, timeout_s: float | None) -> bool:
        """Warm up, and wait; see `CompilePool.wait_ready`."""
        if self._dispatcher.is_here():
            raise RuntimeError("wait_ready in a callback of a future would wait for itself")
        self.warm_up()
        return self.observing.wait_ready(timeout_s)

    def dump(self, future: CompileFuture[Any], timeout_s: float) -> JobDump:
        """Look at a job; see `CompilePool.dump`."""
        name = self._calls.name_of(future)
        if name is None:
            raise ValueError("this future is of no job of this pool; ask the pool that made it")
        if self._dispatcher.is_here():
            raise RuntimeError(
                f"dump of job {name!r} in a callback of a future would wait for itself;"
                " call it in a thread of your own"
            )
        id = self._calls.id_of(future)
        if id is None:
            return JobDump(name, "ended")
        return self.observing.dump(id, name, timeout_s)

    def shutdown(self, *, wait: bool, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end when the accepted jobs have ended."""
        if os.getpid() != self._owner_pid:
            return
        with self._calls.lock:
            self._is_closing = True
        if cancel_futures:
            self._cancel_waiting()
        if not self._dispatcher.has_started:
            self._dispatcher.end_unstarted()
            return
        self._dispatcher.post(self._dispatcher.close)
        if wait:
            self._dispatcher.join()

    def let_go(self) -> None:
        """End after the last job, because nobody has the pool any more."""
        self.shutdown(wait=False)

    def terminate_workers(self) -> None:
        """As `CompilePool.terminate_workers`."""
        self.control("terminate_workers")
        self.shutdown(wait=False, cancel_futures=True)

    def kill_workers(self) -> None:
        """As `terminate`, but cancel the jobs that are not known to run."""
        if os.getpid() == self._owner_pid:
            self._is_closing = True
            self._cancel_waiting()
            self._end_all(errors.killed)

    def terminate(self, *, wait: bool = True) -> None:
        """Accept no more jobs, and end all jobs and processes; within a bound."""
        if os.getpid() == self._owner_pid:
            self._is_closing = True
            self._end_all(errors.ended_with_pool, wait=wait)

    def abandon_after_fork(self) -> None:
        """In a child forked by the user: let go of everything. Locks may be held for ever."""
        futures = self._calls.abandon()
        for future in futures:
            abandon(future)

    def _check_open(self) -> None:
        is_closing = self._is_closing or self._dispatcher.is_closing
        check_usable("RayCompilePool", self._owner_pid, is_closing=is_closing)

    def _cancel_waiting(self) -> None:
        for id, call in self._calls.pop_waiting():
            self._dispatcher.post(functools.partial(self._dispatcher.cancelled, id))
            call.end_cancelled()

    def _end_all(self, reason: Callable[[str], BaseException], *, wait: bool = True) -> None:
        if not self._dispatcher.has_started:
            self._dispatcher.end_unstarted()
        else:
            self._dispatcher.post(self._dispatcher.terminate)
        for id, _ in self._calls.items():
            if (call := self._calls.pop(id)) is not None:
                with contextlib.suppress(Exception):
                    call.end_with_error(reason(call.name))
        if wait:
            self._dispatcher.join(_END_S)

    def _ended(self) -> None:
        self.observing.report_at_end()
        self._observers.close()


def for_nodes(options: PoolOptions) -> PoolOptions:
    """The options of the nodes' pools: without what the program does itself."""
    return options._replace(
        initializer=None,  # it is in what every worker starts with, as the serializer is
        initargs=(),
        serializer=None,
        progress=False,
        trace=None,
        report=None,
        seed=None,  # the program gives each job its own
    )
