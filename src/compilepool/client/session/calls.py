"""The jobs that have not ended."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Sequence

from compilepool.client.future import CompileFuture
from compilepool.light_typing import Any
from compilepool.observe.observer import Observer
from compilepool.wire.payloads import Payload
from compilepool.wire.spares import Spares
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms

_MAX_HELD_FDS = 64
_MAX_SPARES = 4
_PRUNE_AT = 1024  # weak references to futures

_log = logging.getLogger(__name__)


class Call:
    """A job: its name, its terms, its call as sent, its future, and how often it was sent.

    Whoever has taken it from the table calls one of its `end` methods, which tell the observers
    first: who waits for the future finds it counted.
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
        self.is_running = False  # as far as was heard
        self.is_told = False

    def tell_submitted(self) -> None:
        """It is about to be sent: before, so that nobody hears of its end first."""
        self.is_told = True
        for observer in self._observers:
            observer.submitted(self._id, self.name)

    def end_with_result(self, result: Any) -> None:
        """It has returned."""
        try:
            self._tell(None)
        finally:  # whatever happens, the future ends
            self.future._end_with_result(result)

    def end_with_error(self, error: BaseException) -> None:
        """It has raised, or failed."""
        try:
            self._tell(error)
        finally:
            self.future._end_with_error(error)

    def end_cancelled(self) -> None:
        """Nobody wants it, and the future does not know yet."""
        try:
            self.tell_cancelled()
        finally:
            self.future._end_cancelled()

    def tell_cancelled(self) -> None:
        """Likewise, and the future knows."""
        self._tell(None, cancelled=True)

    def _tell(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        record = self.future.record
        for observer in self._observers:
            try:
                observer.ended(self._id, self.name, record, error, cancelled=cancelled)
            except Exception:  # noqa: BLE001 - of a logging filter of the user's, for one
                with contextlib.suppress(Exception):
                    _log.exception("the end of job %r could not be told", self.name)


class UnfinishedCalls:
    """The unfinished jobs by id, in the order submitted. Whoever pops a job ends its future.

    Calls are kept until the job ends, to be sent again if the supervisor dies. Of large ones only
    so many are kept as descriptors, of which a program has few; the others as bytes.

    `lock` guards all state of the session; futures get their results, and so run their callbacks,
    outside it. Reentrant, because a signal handler or a finalizer may submit. Taking a job needs no
    lock (one operation on a dict is atomic), so that who submits and who reads results do not wait
    for each other.

    Args:
        observers: who is told of all jobs.
    """

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = observers
        self.lock = threading.RLock()
        self._jobs: dict[int, Call] = {}
        self._held_fds = 0
        self.spares = Spares(_MAX_SPARES)
        """The memfds of the calls of jobs that have ended."""
        self._futures: list[weakref.ref[CompileFuture[Any]]] = []
        """Those that somebody still has, and some others."""
        self._prune_at = _PRUNE_AT

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def items(self) -> list[tuple[int, Call]]:
        """All jobs, as they are now."""
        # Not of `items()`: that makes tuples, so garbage may be collected, finalizers run, and the
        # dict change meanwhile.
        return [(id, job) for id in list(self._jobs) if (job := self._jobs.get(id)) is not None]

    def add(
        self,
        id: int,
        name: str,
        payload: Payload,
        future: CompileFuture[Any],
        terms: JobTerms = DEFAULT_TERMS,
    ) -> Call:
        """A new job. Takes over the payload."""
        if payload.fd >= 0 and self._held_fds >= _MAX_HELD_FDS:
            payload = payload.spill()
        self._held_fds += payload.fd >= 0
        self._futures.append(weakref.ref(future))
        if len(self._futures) > self._prune_at:
            self._futures = [future for future in self._futures if future() is not None]
            self._prune_at = max(_PRUNE_AT, 2 * len(self._futures))
        job = self._jobs[id] = Call(id, name, terms, payload, future, self._observers)
        return job

    def get(self, id: int) -> Call | None:
        """The job, if it has not ended."""
        return self._jobs.get(id)

    def pop_waiting(self, key: str) -> list[tuple[int, Call]]:
        """Take the jobs of a key from the table that are not known to run, to end them."""
        waiting = [id for id, job in self.items() if job.terms.key == key and not job.is_running]
        return [(id, job) for id in waiting if (job := self.pop(id)) is not None]

    def pop(self, id: int, *, close: bool = True) -> Call | None:
        """Take the job from the table, to end it; None if somebody has. Closes its payload."""
        job = self._jobs.pop(id, None)
        if job is not None and job.payload.fd >= 0:
            with self.lock:
                self._held_fds -= 1
            if close:
                job.payload.close()
        return job

    def reuse(self, payload: Payload) -> None:
        """The call of a job that has ended by itself, and was popped: nobody reads it any more."""
        if payload.fd >= 0:
            self.spares.put(payload.fd, is_read=True)

    def id_of(self, future: CompileFuture[Any]) -> int | None:
        """The job of a future; None if it has ended, or is none of this pool's."""
        return next((id for id, job in self.items() if job.future is future), None)

    def name_of(self, future: CompileFuture[Any]) -> str | None:
        """The name of a future's job, ended or not; None if it is none of this pool's."""
        is_ours = any(each() is future for each in self._futures)
        return future.name if is_ours else None

    def abandon(self) -> list[tuple[CompileFuture[Any], str]]:
        """After a fork, in the child: forget all jobs.

        Returns:
            All futures, with their jobs' names. Some have ended; some were popped by a thread that
            is not in this process, and that nobody else will end.
        """
        self.lock = threading.RLock()  # that thread may have held it
        for observer in self._observers:
            observer.abandon()
        for id, _ in self.items():
            self.pop(id)
        futures = [future for each in self._futures if (future := each()) is not None]
        return [(future, future.name) for future in futures]
