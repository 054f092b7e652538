"""The future of a job, and how the pool ends it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING

from compilepool.errors import PoolClosed
from compilepool.light_typing import TYPE_CHECKING, Any, Protocol, TypeVar, lazy_annotations
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.observe.record import JobRecord

if TYPE_CHECKING:  # loaded only when somebody looks at a pool
    from compilepool.observe.observer import RunningJob


class Owner(Protocol):
    """What a future needs of the pool that runs its job."""

    def cancel(self, id: int) -> bool:
        """Take the job with this number from the pool, and end its future.

        Returns:
            False if the job had ended before.
        """

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """Return the running jobs of these futures, the oldest first."""


class Condition(threading.Condition):
    """A `threading.Condition` without the references to five methods of its lock.

    `threading.Condition` binds them for each condition. They are most of the objects that a future
    consists of, and the garbage collector visits all of them again and again.
    """

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        self._waiters: deque[Any] = deque()

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        taken: bool = self._lock.acquire(*args, **kwargs)
        return taken

    def release(self) -> None:
        self._lock.release()

    # What `wait` and `notify` call (CPython's Lib/threading.py).

    def _release_save(self) -> Any:
        return self._lock._release_save()

    def _acquire_restore(self, state: Any) -> None:
        self._lock._acquire_restore(state)

    def _is_owned(self) -> bool:
        owned: bool = self._lock._is_owned()
        return owned


T = TypeVar("T")

_log = QuietLogger(__name__)


@lazy_annotations
class CompileFuture(Future[T]):
    """A `concurrent.futures.Future` whose `cancel` also ends a running job.

    Only `CompilePool.submit` makes it.

    Attributes:
        name: what the job is called.
        record: what is known of the job besides its result.
    """

    def __init__(
        self,
        id: int = 0,
        name: str = "",
        owner: Owner | None = None,
    ) -> None:
        # This repeats `Future.__init__`, which would make a condition of its own.
        self._condition = Condition()
        self._state = PENDING
        self._result = None
        self._exception: BaseException | None = None
        self._waiters = []
        self._done_callbacks: list[Callable[[Future[T]], object]] = []
        self.record = JobRecord()
        self.name = name
        self._id = id
        # None once the job has ended: who keeps a future does not keep its pool.
        self._owner = owner

    def result(self, timeout: float | None = None) -> T:
        """Return what the job has returned; see `concurrent.futures.Future.result`.

        Before Python 3.13.4, that drops an exception that is false, for example because it has a
        `__len__` (gh-132063).
        """
        try:
            result = super().result(timeout)
            if self._exception is not None:
                raise self._exception
            return result
        finally:
            del self  # else the exception, whose traceback has this frame, would keep its future

    def cancel(self) -> bool:
        """Cancel the job: take it from the queue or, if it runs already, kill its worker.

        Returns:
            True if the future is cancelled now; False if the job had ended before.
        """
        owner = self._owner
        return (owner is not None and owner.cancel(self._id)) or self.cancelled()


# For the session. Whoever takes a call from the table of unfinished calls ends its future, and
# nobody else can. None of these runs under the session's lock: they take the future's own lock,
# and a finalizer that runs under that one may take the session's.


def mark_running(future: CompileFuture[Any]) -> None:
    """Note that the job has begun, unless it has ended meanwhile."""
    with future._condition:
        if future._state == PENDING:
            future._state = RUNNING


def has_callbacks(future: CompileFuture[Any]) -> bool:
    """Whether the end of this future calls code of the user's."""
    return bool(future._done_callbacks)


def end_with_result(future: CompileFuture[T], result: T) -> None:
    """The job has returned."""
    _end(future, future.set_result, result)


def end_with_error(future: CompileFuture[Any], error: BaseException) -> None:
    """The job has raised, or failed."""
    _end(future, future.set_exception, error)


def end_cancelled(future: CompileFuture[Any]) -> None:
    """The job is cancelled."""
    with future._condition:
        future._state = CANCELLED
        future._condition.notify_all()
    future.set_running_or_notify_cancel()  # tells those who wait for several futures
    _end(future, future._invoke_callbacks)  # type: ignore[attr-defined] # typeshed lacks it


def abandon(future: CompileFuture[Any]) -> None:
    """After a fork, in the child: end with `PoolClosed`, unless the job has ended.

    All locks are renewed: a thread that is not in this process may have held them. Callbacks are
    left to the parent: they are code of the user's, and may want such locks of their own. Nothing
    is imported here: a thread that was importing it in the parent would never finish.
    """
    future._condition = Condition()
    for waiter in future._waiters:  # of an `as_completed` that the child may go on with
        was_set = waiter.event.is_set()
        waiter.event = threading.Event()
        waiter.lock = threading.Lock()  # type: ignore[attr-defined] # typeshed lacks it
        if was_set:
            waiter.event.set()
    if not future.done():
        future._done_callbacks.clear()
        error = PoolClosed(
            f"job {future.name!r} belongs to the process that submitted it, which this one was"
            " forked from; make a new pool here"
        )
        end_with_error(future, error)


def _end(future: CompileFuture[Any], end: Callable[..., None], *outcome: Any) -> None:
    future._owner = None
    try:
        end(*outcome)
    except BaseException:  # noqa: BLE001 - it is logged
        # A callback raised SystemExit or the like. `Future` itself logs what is an `Exception`.
        _log.exception("a callback of a future raised")
