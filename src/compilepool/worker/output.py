"""Where the output of jobs goes: what they, and their children, write to descriptors 1 and 2."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys

from compilepool.wire import kernel

_STREAMS = (1, 2)


def write_line_by_line() -> None:
    """Have streams written so: what is in a buffer when the process crashes is lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a preload module may have put anything there
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    line_buffered = 1  # _IOLBF, <stdio.h> of glibc and musl
    kernel.libc().setvbuf(_stdout(), None, line_buffered, ctypes.c_size_t(0))
    kernel.libc().fflush(_stdout())


@functools.cache
def _stdout() -> ctypes.c_void_p:
    return ctypes.c_void_p.in_dll(kernel.libc(), "stdout")


class OutputCapture:
    """Gives each job's output to one of two pipes, in turn, so that no two jobs' get mixed: while
    the supervisor still reads the one of the job before, this process may be at the next.

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
            for stream in _STREAMS:
                os.dup2(self._pipes[self._turn], stream)

    def flush(self) -> None:
        """Write out what has been printed, if that can be done."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):  # a job may have put anything there
                stream.flush()
        kernel.libc().fflush(_stdout())

    def restore(self) -> None:
        """There are no more jobs: output goes where it went before."""
        for stream, original in zip(_STREAMS, self._originals, strict=False):
            with contextlib.suppress(OSError):
                os.dup2(original, stream)
