"""The memory file into which the fork server writes what shall be known when it has crashed."""

from __future__ import annotations

import os

from compilepool.wire.failure import last_crash

_LIMIT = 32 * 1024


class CrashFile:
    """A memfd that outlives the process that writes to it; takes it over."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def text(self) -> str:
        """What faulthandler has written for the last crash; empty if there was none."""
        start = max(0, os.fstat(self.fd).st_size - _LIMIT)
        return last_crash(os.pread(self.fd, _LIMIT, start).decode(errors="replace"))

    def close(self) -> None:
        os.close(self.fd)
