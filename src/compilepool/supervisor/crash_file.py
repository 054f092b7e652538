"""The memory file into which a process writes what shall be known when it has crashed."""

from __future__ import annotations

import os

from compilepool.wire.failure import last_crash
from compilepool.wire.started import HEAD_SIZE, last_started

_LIMIT = 32 * 1024


class CrashFile:
    """A memfd that outlives the process that writes to it. `name` shows in `/proc/PID/fd`."""

    def __init__(self, name: str) -> None:
        self._start = HEAD_SIZE
        self.fd = os.memfd_create(f"compilepool crash of {name}", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, HEAD_SIZE)
        os.lseek(self.fd, HEAD_SIZE, os.SEEK_SET)  # the writer's position as well: it is shared

    def text(self) -> str:
        """What faulthandler has written for the last crash; empty if there was none."""
        start = max(self._start, os.fstat(self.fd).st_size - _LIMIT)
        return last_crash(os.pread(self.fd, _LIMIT, start).decode(errors="replace"))

    def last_started(self) -> int:
        """The job that the process has started last; 0 if none."""
        return last_started(self.fd)

    def forget(self) -> None:
        """What is there now is no last crash: the process lives on. (A child of its crashed.)"""
        self._start = os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)
