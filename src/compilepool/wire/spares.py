"""Memfds of payloads that have been read, kept to be written again.

Their pages are there already: to take new ones of the kernel, and to give them back, costs more
than to copy a megabyte.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque

_LARGEST = 2 << 20  # bytes; of larger ones, most of the time is copying

NAME = "compilepool"
_LINK = f"/memfd:{NAME} (deleted)"  # proc(5)

_STATE_AT = 4  # in the head of a payload; 0 when it is written
_HAS_BEEN_READ = b"\1"


def mark_read(fd: int) -> None:
    """Tell who has written the payload in a memfd that it has been read."""
    os.pwrite(fd, _HAS_BEEN_READ, _STATE_AT)


class Spares:
    """The memfds that one process keeps. Any thread.

    Some programs close all descriptors that they find: then another file may have the number, which
    is left alone.

    Args:
        count: how many, at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: deque[int] = deque()
        self._pid = os.getpid()

    def put(self, fd: int, *, is_read: bool = False) -> None:
        """Keep a memfd, or close it.

        Args:
            fd: the memfd. It is not used again before it has been read.
            is_read: whether it has.
        """
        if not _is_ours(fd):
            return
        if os.fstat(fd).st_size > _LARGEST:
            os.close(fd)
            return
        if is_read:
            mark_read(fd)
        self._fds.append(fd)
        if len(self._fds) > self._count:
            self._drop()

    def take(self) -> int:
        """A memfd that may be written; -1 if there is none."""
        if os.getpid() != self._pid:
            return -1  # its parent has the same
        for _ in range(len(self._fds)):
            try:
                fd = self._fds.popleft()
            except IndexError:  # another thread was faster
                break
            if _is_ours(fd):
                if os.pread(fd, 1, _STATE_AT) == _HAS_BEEN_READ:
                    return fd
                self._fds.append(fd)
        return -1

    def close(self) -> None:
        """Close all."""
        while self._fds:
            self._drop()

    def _drop(self) -> None:
        with contextlib.suppress(IndexError):
            fd = self._fds.popleft()
            if _is_ours(fd):
                os.close(fd)


def _is_ours(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == _LINK
    except OSError:
        return False
