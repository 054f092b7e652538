"""The output of a worker's jobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import close_all

LOG_LIMIT = 64 * 1024
"""Bytes of a job's output that are kept, the last ones."""

_READ_SIZE = 1 << 20  # what a pipe can hold at most, for users without privileges


class WorkerOutput:
    """The two pipes that a worker gives to its jobs in turn, emptied as they fill.

    While jobs were sent ahead, the worker may be at a later job than is known here: then a pipe is
    read only when a result tells that its job has written to it. (The worker begins no job before
    what is in its pipe has been read: see `worker.output`.)

    What a job has left running may still write when it has ended. That is dropped, but for where
    the next job was sent ahead: then nobody can tell whose it is.

    Args:
        loop: the event loop.
        log: called with the output of the job that runs, all of it, as it comes.
    """

    def __init__(self, loop: Loop, log: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._log = log
        pipes = _two_pipes()
        self._readers = [reader for reader, _ in pipes]
        self.fds_of_worker = (pipes[0][1], pipes[1][1])
        self._tails = [b"", b""]
        self._turn = 0
        self._jobs = 0
        self._unwatched: list[int] = []  # turns of pipes that have something to read
        for turn, fd in enumerate(self._readers):
            os.set_blocking(fd, False)
            self._watch(turn)

    def worker_has_started(self) -> None:
        """The worker has its ends."""
        close_all(self.fds_of_worker)
        self.fds_of_worker = (-1, -1)

    def has_jobs(self, count: int) -> None:
        """The worker has so many jobs now. Called before the first one is sent to it."""
        if count == 1 and not self._jobs:
            for turn in (0, 1):
                self._empty(turn)  # what was left by those before
        self._jobs = count
        if count <= 1:
            for turn in self._unwatched:
                self._watch(turn)
            self._unwatched.clear()

    def end_of_job(self, *, is_told: bool) -> bytes:
        """The first job has ended, and it, or its worker, has written its last.

        Args:
            is_told: whether there may be something to read.

        Returns:
            The end of its output.
        """
        turn = self._turn
        if is_told:
            self._empty(turn)
        self._turn ^= 1
        tail, self._tails[turn] = self._tails[turn], b""
        return tail

    def tail(self) -> bytes:
        """The end of the output until now of the job that runs."""
        if self._jobs == 1:
            self._empty(self._turn)
        return self._tails[self._turn]

    def close(self) -> None:
        """Close the pipes."""
        for fd in self._readers:
            self._loop.forget(fd)
        close_all(fd for fd in (*self._readers, *self.fds_of_worker) if fd >= 0)

    def _watch(self, turn: int) -> None:
        self._loop.watch(self._readers[turn], functools.partial(self._is_readable, turn))

    def _is_readable(self, turn: int) -> None:
        if self._jobs > 1:
            self._loop.forget(self._readers[turn])
            self._unwatched.append(turn)
        else:
            self._empty(turn)

    def _empty(self, turn: int) -> None:
        # One read takes all that is there, and nothing that comes meanwhile: when there are jobs
        # ahead, that is the next one's.
        fd = self._readers[turn]
        try:
            data = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(fd)  # nobody is left who could write
        elif turn == self._turn and self._jobs:
            self._log(data)
            self._tails[turn] = (self._tails[turn] + data)[-LOG_LIMIT:]


def _two_pipes() -> list[tuple[int, int]]:
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return [first, os.pipe2(os.O_CLOEXEC)]
    except OSError:
        close_all(first)
        raise
