"""The output of a worker's jobs."""

from __future__ import annotations

import contextlib
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
        for fd, on_readable in zip(
            self._readers, (self._read_first, self._read_second), strict=True
        ):
            os.set_blocking(fd, False)
            loop.watch(fd, on_readable)

    def end_of_job(self) -> bytes:
        """The job that ran has ended, and it, or its worker, has written its last.

        Returns:
            The end of its output.
        """
        turn = self._turn
        for _ in range(_MAX_READS):
            if not self._read(turn):
                break
        self._turn ^= 1
        tail, self._tails[turn] = self._tails[turn], b""
        return tail

    def next_job(self) -> None:
        """After `end_of_job`, when another job counts as the one that runs: it may have begun."""
        if early := self._tails[self._turn]:
            self._log(early)

    def tail(self) -> bytes:
        """The end of the output until now of the job that runs."""
        self._read(self._turn)
        return self._tails[self._turn]

    def close(self) -> None:
        """Close the pipes."""
        for fd in self._readers:
            self._loop.forget(fd)
        for fd in (*self._readers, *self.fds_of_worker):
            os.close(fd)

    def _read_first(self) -> None:
        self._read(0)

    def _read_second(self) -> None:
        self._read(1)

    def _read(self, turn: int) -> bool:
        """Take in what there is; False if that is nothing."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._readers[turn], _READ_SIZE)
        if data:
            if turn == self._turn:
                self._log(data)
            self._tails[turn] = (self._tails[turn] + data)[-LOG_LIMIT:]
        return bool(data)


def _two_pipes() -> list[tuple[int, int]]:
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return [first, os.pipe2(os.O_CLOEXEC)]
    except OSError:
        close_all(first)
        raise
