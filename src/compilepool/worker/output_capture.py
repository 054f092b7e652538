"""Captures what a worker's jobs and their children write to descriptors 1 and 2."""

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
_LATE_S = 10.0  # how long the next job waits for the supervisor to read what a job has written
_PATIENCE_S = 0.05  # and how long if a process that a job has left may be writing
_NEARLY_FULL = 60 * 1024  # bytes; a pipe has room for 64 KiB, pipe(7)
_LOOK_AGAIN_S = 0.0001
_NONE = bytes(4)  # what FIONREAD returns for an empty pipe


def write_line_by_line() -> None:
    """Make stdout (Python's and C's) and Python's stderr line-buffered.

    A crash loses what is still in a buffer.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a preload module may have replaced the stream
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    line_buffered = 1  # _IOLBF, <stdio.h> of glibc and musl
    process.libc().setvbuf(_stdout(), None, line_buffered, ctypes.c_size_t(0))
    process.libc().fflush(_stdout())


@functools.cache
def _stdout() -> ctypes.c_void_p:
    return ctypes.c_void_p.in_dll(process.libc(), "stdout")


class OutputCapture:
    """Sends the output of each job to one of two pipes, in turn, so that no outputs mix.

    While the supervisor reads the output of one job, the worker can run the next. A job does not
    begin before its pipe is empty. The worker can run ahead by more than two jobs if they write
    nothing.

    Args:
        pipes: the write ends of the pipes; None leaves the output where it goes.
    """

    def __init__(self, pipes: tuple[int, int] | None) -> None:
        self._pipes = pipes
        self._turn = 1
        self._at_end = [_NONE, _NONE]
        """What was unread in each pipe when its last job ended."""
        self._originals = [os.dup(stream) for stream in _STREAMS]

    def begin(self) -> None:
        """Direct the output to the pipe of the next job, which is about to run."""
        self._turn ^= 1
        if self._pipes:
            pipe = self._pipes[self._turn]
            if (unread := _unread(pipe)) != _NONE:
                self._wait_until_read(unread)
            for stream in _STREAMS:
                os.dup2(pipe, stream)

    @property
    def is_captured(self) -> bool:
        """Whether the pipes are used, so that `begin` opens what the job before has closed."""
        return self._pipes is not None

    def reopen(self, fd: int) -> None:
        """Open a standard descriptor again, which the current job has closed."""
        if fd not in _STREAMS:
            null = os.open(os.devnull, os.O_RDONLY)  # it gets the lowest number that is free
            os.set_inheritable(null, True)
        elif self._pipes:
            os.dup2(self._pipes[self._turn], fd)
        else:
            os.dup2(self._originals[fd - _STREAMS[0]], fd)

    def has_unread(self) -> bool:
        """Whether the supervisor has still to read output of the current job, which has ended."""
        if self._pipes is None:
            return False
        unread = self._at_end[self._turn] = _unread(self._pipes[self._turn])
        return unread != _NONE

    def _wait_until_read(self, unread: bytes) -> None:
        """Wait until the supervisor has emptied the pipe of the next job.

        It does so when it gets the result of the job that has written to this pipe, however late
        that is on a busy machine. But a process that an earlier job has left running may fill the
        pipe again and again. That shows if there is not what was there when the job ended, or if
        the pipe is full.
        """
        assert self._pipes is not None
        pipe = self._pipes[self._turn]
        is_own = unread == self._at_end[self._turn] and _count(unread) < _NEARLY_FULL
        deadline = time.monotonic() + (_LATE_S if is_own else _PATIENCE_S)
        while (now := _unread(pipe)) != _NONE and time.monotonic() < deadline:
            if now != unread:
                deadline = min(deadline, time.monotonic() + _PATIENCE_S)
                unread = now
            time.sleep(_LOOK_AGAIN_S)

    def flush(self) -> bool:
        """Write out the buffers of stdout and stderr, Python's and C's, if that works.

        Returns:
            False if it has not worked, because a job has closed or replaced a stream.
        """
        process.libc().fflush(_stdout())
        return self.flush_python()

    def flush_python(self) -> bool:
        """Write out Python's buffers alone; see `flush`."""
        has_worked = True
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:  # noqa: BLE001 - a job may have replaced the stream
                has_worked = stream is None and has_worked
        return has_worked

    def restore(self) -> None:
        """Direct the output to where it went before the first job."""
        for stream, original in zip(_STREAMS, self._originals, strict=True):
            with contextlib.suppress(OSError):
                os.dup2(original, stream)


def _unread(pipe: int) -> bytes:
    """How many bytes of a pipe nobody has read, as FIONREAD writes it."""
    try:
        return fcntl.ioctl(pipe, termios.FIONREAD, _NONE)  # pipe(7): works at either end
    except OSError:  # a job has closed the descriptor
        return _NONE


def _count(unread: bytes) -> int:
    return int.from_bytes(unread, sys.byteorder)
