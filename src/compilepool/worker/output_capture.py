"""Where the output of jobs goes: what they, and their children, write to descriptors 1 and 2."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import sys
import termios
import time

from compilepool.linux import process

_STREAMS = (1, 2)
_PATIENCE_S = 0.05
_LOOK_AGAIN_S = 0.0001
_NONE = bytes(4)


def write_line_by_line() -> None:
    """Have streams written so: what is in a buffer when the process crashes is lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a preload module may have put anything there
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    line_buffered = 1  # _IOLBF, <stdio.h> of glibc and musl
    process.libc().setvbuf(_stdout(), None, line_buffered, ctypes.c_size_t(0))
    process.libc().fflush(_stdout())


@functools.cache
def _stdout() -> ctypes.c_void_p:
    return ctypes.c_void_p.in_dll(process.libc(), "stdout")


class OutputCapture:
    """Gives each job's output to one of two pipes, in turn, so that no two jobs' get mixed.

    While the supervisor still has to read the one of the job before, this process may be at the
    next. It may be ahead by more jobs than pipes, but not of what a job has written: none begins
    before its pipe is empty.

    Args:
        pipes: the pipes; None: output goes where it went before.
    """

    def __init__(self, pipes: tuple[int, int] | None) -> None:
        self._pipes = pipes
        self._turn = 1
        self._originals = [os.dup(stream) for stream in _STREAMS] if pipes else []

    def begin(self) -> None:
        """The next job is about to run."""
        self._turn ^= 1
        if self._pipes:
            pipe = self._pipes[self._turn]
            if _has_unread(pipe):
                self._wait_until_read()
            for stream in _STREAMS:
                os.dup2(pipe, stream)

    def has_unread(self) -> bool:
        """Whether the job has written anything that the supervisor has not read yet."""
        return self._pipes is not None and _has_unread(self._pipes[self._turn])

    def _wait_until_read(self) -> None:
        # The supervisor is about to: it has our results. Not for ever, for what an earlier job has
        # left running may write without end.
        assert self._pipes is not None
        deadline = time.monotonic() + _PATIENCE_S
        while _has_unread(self._pipes[self._turn]) and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN_S)

    def flush(self) -> None:
        """Write out what has been printed, if that can be done."""
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105 - for each job; `suppress` takes longer than what is in it
                stream.flush()
            except BaseException:  # noqa: BLE001 - a job may have put anything there
                pass
        process.libc().fflush(_stdout())

    def restore(self) -> None:
        """There are no more jobs: output goes where it went before."""
        for stream, original in zip(_STREAMS, self._originals, strict=False):
            with contextlib.suppress(OSError):
                os.dup2(original, stream)


def _has_unread(pipe: int) -> bool:
    try:
        return fcntl.ioctl(pipe, termios.FIONREAD, _NONE) != _NONE  # pipe(7): at either end
    except OSError:  # a job has closed it
        return False
