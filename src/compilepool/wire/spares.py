"""Memfds of payloads that have been read, kept to be written again.

Their pages are there already: to take new ones of the kernel, and to give them back, costs more
than to copy a megabyte.
"""

from __future__ import annotations

import os
from collections import deque

_LARGEST = 4 << 20  # bytes; of larger ones, most of the time is copying

_STATE_AT = 4  # in the head of a payload; 0 when it is written
_HAS_BEEN_READ = b"\1"


def mark_read(fd: int) -> None:
    """Tell who has written the payload in a memfd that it has been read."""
    os.pwrite(fd, _HAS_BEEN_READ, _STATE_AT)


class Spares:
    """The memfds that one process keeps. Any thread.

    Args:
        count: how many, at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: deque[int] = deque()

    def put(self, fd: int) -> None:
        """Keep a memfd, or close it. It is not used again before it was marked as read."""
        if os.fstat(fd).st_size > _LARGEST:
            os.close(fd)
            return
        self._fds.append(fd)
        if len(self._fds) > self._count:
            os.close(self._fds.popleft())

    def take(self) -> int:
        """A memfd that may be written; -1 if there is none."""
        for _ in range(len(self._fds)):
            try:
                fd = self._fds.popleft()
            except IndexError:  # another thread was faster
                break
            if os.pread(fd, 1, _STATE_AT) == _HAS_BEEN_READ:
                return fd
            self._fds.append(fd)
        return -1

    def close(self) -> None:
        """Close all."""
        while self._fds:
            os.close(self._fds.popleft())
