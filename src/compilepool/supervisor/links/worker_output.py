"""Reads what a worker's runs write to stdout and stderr."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import close_all

LOG_LIMIT = 64 * 1024
"""Bytes of a run's output that are kept: the last ones."""

_READ_SIZE = 1 << 20  # the most that a pipe holds for an unprivileged user, pipe(7)


class WorkerOutput:
    """The two pipes that a worker gives to its runs in turn.

    While the worker has several runs, it may be at a later run than the supervisor knows. Then a
    pipe is read only when a result says that its run has written something. The worker begins no
    run before that run's pipe is empty, see `worker.output_capture`.

    A process that a run has left behind may write after the run has ended. That output is dropped,
    unless the next run was sent ahead: then nobody can tell which run the output comes from.

    Args:
        loop: the event loop.
        log: called with all output of the current run, as it comes.
    """

    def __init__(self, loop: Loop, log: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._log = log
        pipes = _two_pipes()
        self._readers = [reader for reader, _ in pipes]
        self.fds_of_worker = (pipes[0][1], pipes[1][1])
        self._tails = [b"", b""]
        self._turn = 0
        self._runs = 0
        self._unwatched: list[int] = []  # indexes of pipes that have something to read
        for turn, fd in enumerate(self._readers):
            os.set_blocking(fd, False)
            self._watch(turn)

    def worker_has_started(self) -> None:
        """Close the write ends here, because the worker has them."""
        close_all(self.fds_of_worker)
        self.fds_of_worker = (-1, -1)

    def has_runs(self, count: int) -> None:
        """Note how many runs the worker has. Called before the first one is sent to it."""
        if count == 1 and not self._runs:
            for turn in (0, 1):
                self._empty(turn)  # drops what earlier runs have left
        self._runs = count
        if count <= 1:
            for turn in self._unwatched:
                self._watch(turn)
            self._unwatched.clear()

    def end_of_run(self, *, has_output: bool) -> bytes:
        """Take the output of the first run, which has ended and writes nothing more.

        Args:
            has_output: whether there may be something to read.

        Returns:
            The end of the run's output.
        """
        turn = self._turn
        if has_output:
            self._empty(turn)
        self._turn ^= 1
        tail, self._tails[turn] = self._tails[turn], b""
        return tail

    def tail(self) -> bytes:
        """The end of what the current run has written until now."""
        if self._runs == 1:
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
        if self._runs > 1:
            self._loop.forget(self._readers[turn])
            self._unwatched.append(turn)
        else:
            self._empty(turn)

    def _empty(self, turn: int) -> None:
        # One read takes all that is in the pipe, and nothing that is written later, which may come
        # from the next run.
        fd = self._readers[turn]
        try:
            data = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(fd)  # nobody is left who could write
        elif turn == self._turn and self._runs:
            self._log(data)
            self._tails[turn] = (self._tails[turn] + data)[-LOG_LIMIT:]


def _two_pipes() -> list[tuple[int, int]]:
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return [first, os.pipe2(os.O_CLOEXEC)]
    except OSError:
        close_all(first)
        raise
