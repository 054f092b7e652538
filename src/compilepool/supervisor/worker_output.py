"""The output of a worker's jobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from compilepool.supervisor.loop import Loop
from compilepool.wire.channel import close_all

LOG_LIMIT = 64 * 1024
"""Bytes of a job's output that are kept, the last ones."""

_READ_SIZE = 1 << 20  # what a pipe can hold at most, for users without privileges
_MAX_READS = 4  # what is written while a pipe is emptied may be endless


class WorkerOutput:
    """The two pipes that a worker gives to its jobs in turn, emptied as they fill.

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
        self._is_idle = True
        for turn, fd in enumerate(self._readers):
            os.set_blocking(fd, False)
            loop.watch(fd, functools.partial(self._empty, turn, 1))

    def worker_has_started(self) -> None:
        """The worker has its ends."""
        close_all(self.fds_of_worker)
        self.fds_of_worker = (-1, -1)

    def first_job(self) -> None:
        """A job is about to be sent to the worker, which has none."""
        for turn in (0, 1):
            self._empty(turn)
        self._is_idle = False

    def end_of_job(self) -> bytes:
        """The job that ran has ended, and it, or its worker, has written its last.

        Returns:
            The end of its output.
        """
        turn = self._turn
        self._empty(turn)
        self._turn ^= 1
        tail, self._tails[turn] = self._tails[turn], b""
        return tail

    def next_job(self, *, has_one: bool) -> None:
        """After `end_of_job`: whether the worker has another job, which may have begun."""
        self._is_idle = not has_one
        early, turn = self._tails[self._turn], self._turn
        if not has_one:
            self._tails[turn] = b""
        elif early:
            self._log(early)

    def tail(self) -> bytes:
        """The end of the output until now of the job that runs."""
        self._empty(self._turn)
        return self._tails[self._turn]

    def close(self) -> None:
        """Close the pipes."""
        for fd in self._readers:
            self._loop.forget(fd)
        close_all(fd for fd in (*self._readers, *self.fds_of_worker) if fd >= 0)

    def _empty(self, turn: int, reads: int = _MAX_READS) -> None:
        fd = self._readers[turn]
        for _ in range(reads):
            try:
                data = os.read(fd, _READ_SIZE)
            except BlockingIOError:
                return
            if not data:
                self._loop.forget(fd)  # nobody is left who could write
                return
            if self._is_idle:
                continue
            if turn == self._turn:
                self._log(data)
            self._tails[turn] = (self._tails[turn] + data)[-LOG_LIMIT:]


def _two_pipes() -> list[tuple[int, int]]:
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return [first, os.pipe2(os.O_CLOEXEC)]
    except OSError:
        close_all(first)
        raise
