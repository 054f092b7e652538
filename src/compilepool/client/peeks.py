"""Asks the supervisor how things are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future

from compilepool.client.jobs import JobTable
from compilepool.wire.messages import Kind, Message
from compilepool.wire.peek import PoolPeek


class Peeks:
    """The looks at one pool.

    Args:
        jobs: the pool's jobs, whose lock guards the session.
        send: sends a message to the supervisor, under that; False if there is none.
    """

    def __init__(
        self,
        jobs: JobTable,
        send: Callable[[Message], bool],
    ) -> None:
        self._jobs = jobs
        self._send = send
        self._ids = itertools.count(1)
        self._expected: dict[int, Future[PoolPeek]] = {}
        self.last = PoolPeek()
        """What was told last."""

    def peek(self, timeout_s: float) -> PoolPeek:
        """How things are now. If the supervisor does not tell in time: how they were."""
        future: Future[PoolPeek] = Future()
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

    def told(self, id: int, peek: PoolPeek) -> None:
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
