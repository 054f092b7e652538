"""Asks what jobs do, for `CompilePool.dump`."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

from compilepool.wire.light_typing import TYPE_CHECKING, Any
from compilepool.wire.messages import Kind, Message

if TYPE_CHECKING:
    from compilepool.client.dump import JobDump
    from compilepool.client.future import CompileFuture
    from compilepool.client.jobs import JobTable
    from compilepool.wire.snapshot import JobSnapshot


class Dumps:
    """Asks the supervisor what jobs do.

    Args:
        jobs: the jobs of the pool.
        send: sends a message to the supervisor; called under the lock of `jobs`.
    """

    def __init__(self, jobs: JobTable, send: Callable[[Message], object]) -> None:
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
        from compilepool.client.dump import JobDump, dump_of

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
