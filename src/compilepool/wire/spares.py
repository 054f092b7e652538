"""Memfds of payloads that have been read, kept to be written again.

The kernel has already allocated their pages. Allocating new pages and freeing them costs more than
copying a megabyte.

A payload that several processes read, or that is read later, is sealed instead: it is never written
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque

_LARGEST = 2 << 20  # bytes; for a larger payload, copying takes most of the time

NAME = "compilepool"
_LINK = f"/memfd:{NAME} (deleted)"  # the link target of such a memfd in /proc/self/fd, proc(5)

_STATE_AT = 4  # offset in the head of a payload; the byte is 0 when the payload is written
_HAS_BEEN_READ = b"\1"


_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def seal(fd: int) -> None:
    """Let nobody change a memfd any more, not even the process that wrote it.

    Raises:
        OSError: it is no memfd, or not one of ours, or is mapped for writing, fcntl(2).
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def _is_sealed(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)


def mark_read(fd: int) -> None:
    """Mark the payload in a memfd as read, so that the process that wrote it can write it again.

    Raises:
        OSError: the descriptor cannot be written to.
    """
    os.pwrite(fd, _HAS_BEEN_READ, _STATE_AT)


class Spares:
    """The memfds that one process keeps. Any thread may use it.

    Some programs close all descriptors that they find. The number of a memfd may then belong to
    another file. So every descriptor is checked before it is used or closed.

    Args:
        count: the most memfds to keep.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._fds: deque[int] = deque()
        self._pid = os.getpid()

    def put(self, fd: int, *, is_read: bool = False) -> None:
        """Keep a memfd that has been sent or read.

        A memfd that is too large is closed instead. If there are too many, the oldest one is
        closed.

        Args:
            fd: the memfd. `take` does not return it before it has been read.
            is_read: whether this process has already read it.
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
        """A memfd that may be written to; -1 if there is none. Closes those that are sealed."""
        if os.getpid() != self._pid:
            return -1  # this is a forked child, and its parent has the same memfds
        for _ in range(len(self._fds)):
            try:
                fd = self._fds.popleft()
            except IndexError:  # another thread took it
                break
            if _is_ours(fd):
                if _is_sealed(fd):
                    os.close(fd)
                elif os.pread(fd, 1, _STATE_AT) == _HAS_BEEN_READ:
                    return fd
                else:
                    self._fds.append(fd)
        return -1

    def close(self) -> None:
        """Close all memfds."""
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
