"""What the client asks its supervisor, and who waits for the answers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from compilepool.client.session.calls import UnfinishedCalls
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.messages import Kind, Message, Readiness
from compilepool.wire.pool_view import PoolView

if TYPE_CHECKING:
    from compilepool.client.future import CompileFuture
    from compilepool.client.job_dump import JobDump
    from compilepool.client.session.calls import UnfinishedCalls
    from compilepool.wire.job_snapshot import JobSnapshot


class Dumps:
    """Asks the supervisor what jobs do.

    Args:
        jobs: the jobs of the pool.
        send: sends a message to the supervisor; called under the lock of `jobs`.
    """

    def __init__(self, jobs: UnfinishedCalls, send: Callable[[Message], object]) -> None:
        self._jobs = jobs
        self._send = send
        self._expected: dict[int, _Answer] = {}
        self._late: set[int] = set()
        """The jobs of which an answer may still come that nobody waits for any more."""

    def dump(self, future: CompileFuture[Any], timeout_s: float) -> JobDump:
        """What a job does just now.

        Raises:
            ValueError: it is none of this pool's.
            TimeoutError: the supervisor did not tell in time.
        """
        # It is there for who asks only, and takes long to import.
        from compilepool.client.job_dump import JobDump, dump_of

        try:
            name = self._jobs.name_of(future)
        except TypeError:  # it is no future at all
            name = None
        if name is None:
            raise ValueError("this future is of no job of this pool; ask the pool that made it")
        deadline = time.monotonic() + timeout_s
        snapshot = None
        while snapshot is None:  # else what was told may be of long ago
            with self._jobs.lock:
                id = self._jobs.id_of(future)
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
        """The supervisor has told."""
        with self._jobs.lock:
            is_old = id in self._late and snapshot.state != "ended"
            self._late.discard(id)
            answer = self._expected.pop(id, None)
        if answer is not None:
            answer.future.set_result(None if is_old else snapshot)

    def ended(self, snapshot: JobSnapshot) -> None:
        """There is no supervisor any more, that could tell."""
        self._late.clear()
        for id in list(self._expected):
            self.told(id, snapshot)

    def _give_up(self, id: int, answer: _Answer) -> None:
        """One who waited does not any more."""
        with self._jobs.lock:
            answer.waiters -= 1
            if answer.waiters == 0 and self._expected.get(id) is answer:
                del self._expected[id]
                self._late.add(id)


class _Answer:
    """What the supervisor is to tell of a job, and how many wait for it."""

    def __init__(self) -> None:
        self.future: Future[JobSnapshot | None] = Future()
        """Its result is None if what was told answers who has given up."""
        self.waiters = 0


class Peeks:
    """The looks at one pool.

    Args:
        jobs: the pool's jobs, whose lock guards the session.
        send: sends a message to the supervisor, under that; False if there is none.
    """

    def __init__(
        self,
        jobs: UnfinishedCalls,
        send: Callable[[Message], bool],
    ) -> None:
        self._jobs = jobs
        self._send = send
        self._ids = itertools.count(1)
        self._expected: dict[int, Future[PoolView]] = {}
        self.last = PoolView()
        """What was told last."""

    def peek(self, timeout_s: float) -> PoolView:
        """How things are now. If the supervisor does not tell in time: how they were."""
        future: Future[PoolView] = Future()
        id = next(self._ids)
        with self._jobs.lock:
            self._expected[id] = future
            is_sent = self._send(Message(Kind.PEEK, id))
        try:
            return future.result(timeout_s) if is_sent else self.last
        except TimeoutError:
            return self.last
        finally:
            with self._jobs.lock:
                self._expected.pop(id, None)

    def told(self, id: int, peek: PoolView) -> None:
        """The supervisor has told."""
        self.last = peek
        future = self._expected.pop(id, None)
        if future is not None:
            future.set_result(peek)

    def lost(self) -> None:
        """There is no supervisor any more: nothing runs."""
        self.last = self.last._replace(
            workers=(), queued=0, fork_server=0, preloaded_at=0.0, is_quiesced=False
        )
        for id in list(self._expected):
            self.told(id, self.last)


class Warmth:
    """What is known of it. Futures end outside all locks, see `CompileFuture`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._readiness = Readiness.NONE
        self._told: Future[bool] | None = None
        self._told_first: Future[bool] | None = None
        self._number = 0

    @property
    def is_warm(self) -> bool:
        """Whether all workers have started that were asked for."""
        return self._readiness is Readiness.ALL

    def expect(self) -> tuple[int, Future[bool]]:
        """A warm-up is about to be sent.

        Returns:
            Its number; and what is told next of this one, or a later one: True, or why that cannot
            be; False if the supervisor is gone. Cancelled if workers are not wanted any more.
        """
        with self._lock:
            self._number += 1
            if self._told is None:
                self._told = Future()
            return self._number, self._told

    def expect_first(self) -> Future[bool]:
        """A warm-up is about to be sent, and who calls this waits for its first worker.

        Returns:
            True if there is one, or why there cannot be; False if that is not to be waited for any
            more: the supervisor is gone, or workers are not wanted.
        """
        with self._lock:
            if self._told_first is None:
                self._told_first = Future()
            return self._told_first

    def told(self, number: int, readiness: Readiness) -> None:
        """The supervisor has told, after this warm-up had come."""
        is_of_last = number == self._number or (number == 0 and self._told is None)
        if not is_of_last:
            return  # what it knew before it heard of the last one
        self._readiness = readiness
        if readiness is Readiness.NONE:
            return
        if first := self._take_first():
            first.set_result(True)
        if readiness is Readiness.ALL and (told := self._take()):
            told.set_result(True)

    def failed(self, number: int, error: BaseException) -> None:
        """Workers cannot be had, as was found after this warm-up had come."""
        if number != self._number:
            return
        for told in (self._take_first(), self._take()):
            if told:
                told.set_exception(error)

    def quiesced(self) -> None:
        """Nobody wants workers any more."""
        if first := self._take_first():
            first.set_result(False)
        if told := self._take():
            told.cancel()

    def lost(self) -> None:
        """There is no supervisor any more."""
        self._readiness = Readiness.NONE
        for told in (self._take_first(), self._take()):
            if told:
                told.set_result(False)

    def abandon(self) -> None:
        """After a fork, in the child: the lock may be held for ever."""
        self._lock = threading.RLock()

    def _take(self) -> Future[bool] | None:
        with self._lock:
            told, self._told = self._told, None
            return told

    def _take_first(self) -> Future[bool] | None:
        with self._lock:
            told, self._told_first = self._told_first, None
            return told
