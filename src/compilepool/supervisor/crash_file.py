"""The memory file into which faulthandler of another process writes its last words."""

from __future__ import annotations

import os

from compilepool.wire.failure import last_crash

_LIMIT = 32 * 1024


class CrashFile:
    """A memfd that outlives the process that writes to it. `name` shows in `/proc/PID/fd`."""

    def __init__(self, name: str) -> None:
        self._start = 0
        self.fd = os.memfd_create(f"compilepool crash of {name}", os.MFD_CLOEXEC)

    def text(self) -> str:
        """What faulthandler has written for the last crash; empty if there was none."""
        start = max(self._start, os.fstat(self.fd).st_size - _LIMIT)
        return last_crash(os.pread(self.fd, _LIMIT, start).decode(errors="replace"))

    def forget(self) -> None:
        """What is there now is no last crash: the process lives on. (A child of its crashed.)"""
        self._start = os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)
