"""The table of unfinished calls: the jobs of a pool that have not ended."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from compilepool.client.future import (
    CompileFuture,
    end_cancelled,
    end_with_error,
    end_with_result,
)
from compilepool.client.terms import seed_of_job
from compilepool.light_typing import Any
from compilepool.observe.observer import Observer
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.wire.payloads import Payload
from compilepool.wire.spares import Spares
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

_MAX_HELD_FDS = 64
_MAX_SPARES = 4
_PRUNE_AT = 1024  # weak references to futures

_log = QuietLogger(__name__)


class Call:
    """The entry of an unfinished job: what is needed to send it, again if need be, and to end it.

    Whoever takes it from the table calls one of its `end` methods. These tell the observers before
    they end the future, so who waits for the future finds its job counted.

    Attributes:
        name: the job's name.
        terms: the job's terms.
        payload: its function and arguments, pickled.
        future: its future.
        sends: how often it was sent to a supervisor.
        is_running: whether the supervisor has said that it runs.
        is_told: whether the observers know of it.
    """

    __slots__ = (
        "_id",
        "_observers",
        "future",
        "is_running",
        "is_told",
        "name",
        "payload",
        "sends",
        "terms",
    )

    def __init__(
        self,
        id: int,
        name: str,
        terms: JobTerms,
        payload: Payload,
        future: CompileFuture[Any],
        observers: Sequence[Observer],
    ) -> None:
        self._id = id
        self._observers = observers
        self.name = name
        self.terms = terms
        self.payload = payload
        self.future = future
        self.sends = 0
        self.is_running = False
        self.is_told = False

    def tell_submitted(self) -> None:
        """Tell the observers, before the call is sent: they never hear of its end first."""
        self.is_told = True
        for observer in self._observers:
            observer.submitted(self._id, self.name)

    def end_with_result(self, result: Any) -> None:
        """The job has returned."""
        try:
            self._tell(None)
        finally:  # whatever happens, the future ends
            end_with_result(self.future, result)

    def end_with_error(self, error: BaseException) -> None:
        """The job has raised, or failed."""
        try:
            self._tell(error)
        finally:
            end_with_error(self.future, error)

    def end_cancelled(self) -> None:
        """The job is cancelled."""
        try:
            self.tell_cancelled()
        finally:
            end_cancelled(self.future)

    def tell_cancelled(self) -> None:
        """The job is cancelled, and nobody has its future."""
        self._tell(None, cancelled=True)

    def _tell(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        record = self.future.record
        for observer in self._observers:
            try:
                observer.ended(self._id, self.name, record, error, cancelled=cancelled)
            except Exception:  # noqa: BLE001 - the others must hear of it
                _log.exception("the end of job %r could not be told", self.name)


class UnfinishedCalls:
    """The unfinished calls by id, in the order submitted. Whoever pops a call ends its future.

    Payloads are kept until their jobs end, to be sent again if the supervisor dies. A program has
    few descriptors, so only some of the large payloads are kept as descriptors, the others as
    bytes.

    `lock` guards all state of the session. Futures get their results, and so run their callbacks,
    outside it. It is reentrant, because a signal handler or a finalizer may submit. Popping needs
    no lock, since one operation on a dict is atomic: the thread that submits and the one that reads
    results do not wait for each other.

    Args:
        observers: who is told of all jobs.
        seed: the pool's, which gives each job one of its own; None: no job gets one.
    """

    def __init__(self, observers: Sequence[Observer] = (), seed: int | None = None) -> None:
        self._observers = observers
        self._seed = seed
        self.lock = threading.RLock()
        self._calls: dict[int, Call] = {}
        self._held_fds = 0
        self.with_priority = 0
        """How many calls have another priority than the default."""
        self.spares = Spares(_MAX_SPARES)
        """The memfds of payloads whose jobs have ended."""
        self._futures: list[weakref.ref[CompileFuture[Any]]] = []
        """The futures that somebody still has, and dead references until they are pruned."""
        self._prune_at = _PRUNE_AT

    def __bool__(self) -> bool:
        return bool(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def items(self) -> list[tuple[int, Call]]:
        """All ids and calls, as they are now."""
        # The dict's own `items()` makes tuples. That may trigger the garbage collector, whose
        # finalizers may change the dict meanwhile.
        calls = self._calls
        return [(id, call) for id in list(calls) if (call := calls.get(id)) is not None]

    def add(
        self,
        id: int,
        name: str,
        payload: Payload,
        future: CompileFuture[Any],
        terms: JobTerms = DEFAULT_TERMS,
    ) -> Call:
        """Enter a new call. Takes over the payload."""
        if self._seed is not None and terms.seed is None:
            terms = terms._replace(seed=seed_of_job(self._seed, id))
        if payload.fd >= 0 and self._held_fds >= _MAX_HELD_FDS:
            payload = payload.spill()
        self._held_fds += payload.fd >= 0
        self.with_priority += terms.priority != 0
        self._futures.append(weakref.ref(future))
        if len(self._futures) > self._prune_at:
            self._futures = [future for future in self._futures if future() is not None]
            self._prune_at = max(_PRUNE_AT, 2 * len(self._futures))
        call = self._calls[id] = Call(id, name, terms, payload, future, self._observers)
        return call

    def get(self, id: int) -> Call | None:
        """The call, if its job has not ended."""
        return self._calls.get(id)

    def pop_waiting(self, key: str | None = None) -> list[tuple[int, Call]]:
        """Take the calls that are not known to run, to end them.

        Args:
            key: only those with this key; None: all.
        """
        waiting = [
            id for id, call in self.items() if not call.is_running and key in (None, call.terms.key)
        ]
        return [(id, call) for id in waiting if (call := self.pop(id)) is not None]

    def pop(self, id: int, *, close: bool = True) -> Call | None:
        """Take the call, to end it; None if somebody has taken it.

        Args:
            id: the call's.
            close: whether to close its payload.
        """
        call = self._calls.pop(id, None)
        if call is not None and (call.payload.fd >= 0 or call.terms.priority):
            with self.lock:
                self._held_fds -= call.payload.fd >= 0
                self.with_priority -= call.terms.priority != 0
            if close:
                call.payload.close()
        return call

    def reuse(self, payload: Payload) -> None:
        """Keep the memfd of a payload that nobody reads any more: its job has ended by itself."""
        if payload.fd >= 0 and not payload.is_lost:
            self.spares.put(payload.fd, is_read=True)

    def id_of(self, future: CompileFuture[Any]) -> int | None:
        """The id of a future's call; None if it has ended, or is not of this pool."""
        return next((id for id, call in self.items() if call.future is future), None)

    def name_of(self, future: CompileFuture[Any]) -> str | None:
        """The name of a future's job, ended or not; None if it is not of this pool."""
        is_ours = any(each() is future for each in self._futures)
        return future.name if is_ours else None

    def abandon(self) -> list[CompileFuture[Any]]:
        """After a fork, in the child: forget all calls.

        Returns:
            All futures. Some have ended. A thread that is not in this process may have popped the
            calls of others: nobody else will end those.
        """
        self.lock = threading.RLock()  # that thread may have held it
        for observer in self._observers:
            observer.abandon()
        for id, _ in self.items():
            self.pop(id)
        return [future for each in self._futures if (future := each()) is not None]
