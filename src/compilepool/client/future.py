"""The future of a job."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, PENDING, RUNNING

from compilepool.client.record import JobRecord
from compilepool.light_typing import TYPE_CHECKING, Any, TypeVar, lazy_annotations

if TYPE_CHECKING:
    from compilepool.client.session.processes import Staff


class Condition(threading.Condition):
    """As `threading.Condition`, without the references to five methods of its lock.

    They are most of the objects that a future is made of, each is made anew for each future, and
    the garbage collector visits them all again and again.
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

_log = logging.getLogger(__name__)


@lazy_annotations
class CompileFuture(Future[T]):
    """A `concurrent.futures.Future` whose `cancel` also ends a job that runs.

    Made by `CompilePool.submit` only.

    Attributes:
        name: what the job is called.
        record: what is known of the job besides its result.
    """

    def __init__(
        self,
        id: int = 0,
        name: str = "",
        staff: Staff | None = None,
    ) -> None:
        # As `Future.__init__` does, which is not called: it would make a condition of its own.
        self._condition = Condition()
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[Callable[[Future[T]], object]] = []
        self.record = JobRecord()
        self.name = name
        self._id = id
        # Who can cancel it, and tell whether it runs; None when it has ended, so that a future that
        # is kept does not keep its pool.
        self._staff = staff

    def cancel(self) -> bool:
        """Cancel the job: take it from the queue or, if it runs already, kill its worker.

        Returns:
            True if the future is cancelled now; False if the job had ended before.
        """
        staff = self._staff
        if staff is None or not staff.cancel_job(self._id):
            return self.cancelled()
        self._end_cancelled()
        return True

    # For the session. Whoever takes the job from the session's table ends its future, and nobody
    # else can. None of these is called under the session's lock: they take the future's own, within
    # which a finalizer may run that takes the session's.

    def _mark_running(self) -> None:
        """The job has begun, unless it has ended meanwhile."""
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING

    def _end_cancelled(self) -> None:
        with self._condition:
            self._state = CANCELLED
            self._condition.notify_all()
        self.set_running_or_notify_cancel()  # tells those who wait for several futures
        self._let_go(self._invoke_callbacks)  # type: ignore[attr-defined] # typeshed lacks it

    def _end_with_result(self, result: T) -> None:
        self._let_go(self.set_result, result)

    def _end_with_error(self, error: BaseException) -> None:
        self._let_go(self.set_exception, error)

    def _let_go(self, end: Callable[..., None], *outcome: Any) -> None:
        self._staff = None
        try:
            end(*outcome)
        except BaseException:  # noqa: BLE001 - it is logged
            # Of a callback. As with its `Exception`s, which never get here: they are logged.
            _log.exception("a callback of a future raised")

    def _abandon(self, error: BaseException) -> None:
        """After a fork, in the child: end with `error`, unless it has ended.

        All locks are renewed: a thread that is not in this process may have held them. Callbacks
        are left to the parent: they are user code, and might want such locks of their own.
        """
        self._condition = Condition()
        for waiter in self._waiters:  # of an `as_completed` that the child may go on with
            was_set = waiter.event.is_set()
            waiter.event = threading.Event()
            waiter.lock = threading.Lock()  # type: ignore[attr-defined] # typeshed lacks it
            if was_set:
                waiter.event.set()
        if not self.done():
            self._done_callbacks.clear()
            self._end_with_error(error)
