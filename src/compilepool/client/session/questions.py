"""Questions to the supervisor: what a job does, and how the pool is. Any thread may ask."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future

from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.threads import PoolThreads
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.messages import Kind, Message
from compilepool.wire.pool_view import PoolView

if TYPE_CHECKING:
    from compilepool.client.future import CompileFuture
    from compilepool.client.job_dump import JobDump
    from compilepool.wire.job_snapshot import JobSnapshot

_VIEW_S = 2.0


class Dumps:
    """Asks the supervisor what a job does.

    An answer names the job, not the question. So all who ask about one job share the next answer,
    and one that comes after all of them have given up is not taken for that to a later question.

    Args:
        calls: the unfinished calls of the pool.
        send: sends a message to the supervisor; called under the lock of `calls`.
        threads: those of the pool.
    """

    def __init__(
        self, calls: UnfinishedCalls, send: Callable[[Message], object], threads: PoolThreads
    ) -> None:
        self._calls = calls
        self._send = send
        self._threads = threads
        self._expected: dict[int, _Answer] = {}
        self._late: set[int] = set()
        """The calls about which an answer may still come that nobody waits for any more."""

    def dump(self, future: CompileFuture[Any], timeout_s: float) -> JobDump:
        """Ask what a job does now.

        Args:
            future: the job's.
            timeout_s: how long to wait for the answer, in seconds.

        Raises:
            ValueError: the future is not of this pool.
            TimeoutError: the supervisor did not answer in time.
            RuntimeError: the thread that would hear the answer asks.
        """
        from compilepool.client.job_dump import JobDump, dump_of  # takes long to import

        try:
            name = self._calls.name_of(future)
        except TypeError:  # it is no future at all
            name = None
        if name is None:
            raise ValueError("this future is of no job of this pool; ask the pool that made it")
        if self._threads.is_reader():
            raise RuntimeError(
                f"dump of job {name!r} in a callback of a future would wait for itself;"
                " call it in a thread of your own"
            )
        deadline = time.monotonic() + timeout_s
        snapshot = None
        while snapshot is None:  # None: the answer may be a late one to an earlier question
            with self._calls.lock:
                id = self._calls.id_of(future)
                if id is None:
                    return JobDump(name, "ended")
                answer = self._expected.setdefault(id, _Answer())
                answer.waiters += 1
                self._send(Message(Kind.DUMP, id))
            try:
                snapshot = answer.future.result(deadline - time.monotonic())
            except TimeoutError:
                raise TimeoutError(
                    f"nothing was heard of job {name!r} within {timeout_s:g} s; its supervisor may"
                    " be stopped, or has just been replaced: try again"
                ) from None
            finally:
                self._give_up(id, answer)
        return dump_of(snapshot, name)

    def told(self, id: int, snapshot: JobSnapshot) -> None:
        """The supervisor has answered."""
        with self._calls.lock:
            is_old = id in self._late and snapshot.state != "ended"
            self._late.discard(id)
            answer = self._expected.pop(id, None)
        if answer is not None:
            answer.future.set_result(None if is_old else snapshot)

    def ended(self) -> None:
        """There is no supervisor any more: answer all who wait."""
        self._late.clear()
        if self._expected:
            from compilepool.wire.job_snapshot import JobSnapshot

            for id in list(self._expected):
                self.told(id, JobSnapshot("ended"))

    def _give_up(self, id: int, answer: _Answer) -> None:
        """One of those who wait does not wait any more."""
        with self._calls.lock:
            answer.waiters -= 1
            if answer.waiters == 0 and self._expected.get(id) is answer:
                del self._expected[id]
                self._late.add(id)


class _Answer:
    """The answer about one job, and how many wait for it."""

    def __init__(self) -> None:
        self.future: Future[JobSnapshot | None] = Future()
        """Its result is None if the answer is one to a question that was given up."""
        self.waiters = 0


class Views:
    """Asks the supervisor how the pool is.

    Args:
        calls: the unfinished calls of the pool.
        send: sends a message to the supervisor, under the lock of `calls`; False if there is none.
        threads: those of the pool.

    Attributes:
        last: the last answer.
    """

    def __init__(
        self, calls: UnfinishedCalls, send: Callable[[Message], bool], threads: PoolThreads
    ) -> None:
        self._calls = calls
        self._send = send
        self._threads = threads
        self._ids = itertools.count(1)
        self._expected: dict[int, Future[PoolView]] = {}
        self.last = PoolView()

    def view(self) -> PoolView:
        """How the pool is now.

        It is the last answer if the supervisor does not answer in time, or if a thread of the pool
        asks, which cannot wait for itself.
        """
        if self._threads.is_here():
            return self.last
        future: Future[PoolView] = Future()
        id = next(self._ids)
        with self._calls.lock:
            self._expected[id] = future
            is_sent = self._send(Message(Kind.VIEW, id))
        try:
            return future.result(_VIEW_S) if is_sent else self.last
        except TimeoutError:
            return self.last
        finally:
            with self._calls.lock:
                self._expected.pop(id, None)

    def told(self, id: int, view: PoolView) -> None:
        """The supervisor has answered."""
        self.last = view
        future = self._expected.pop(id, None)
        if future is not None:
            future.set_result(view)

    def supervisor_lost(self) -> None:
        """There is no supervisor any more, so nothing runs."""
        self.last = self.last._replace(
            workers=(), clients=(), queued=0, fork_server=0, preloaded_at=0.0, is_quiesced=False
        )
        for id in list(self._expected):
            self.told(id, self.last)
