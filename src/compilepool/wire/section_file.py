"""A section of a memfd as a file to unpickle from.

The unpickler then reads large objects straight to where they are to stay, which takes one copy and
no page faults but for theirs.
"""

from __future__ import annotations

import io
import os

from compilepool.wire.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_SIZE = 64 * 1024  # bytes, of a frame of a pickle


def open_section(fd: int, at: int, length: int) -> io.BufferedReader:
    """The section as a file, which must not be used when `fd` is closed.

    Args:
        fd: the memfd. Its file offset, which processes share, is not used.
        at: where the section begins, in bytes.
        length: how many it has.
    """
    return io.BufferedReader(_Section(fd, at, length), _BUFFER_SIZE)


class _Section(io.RawIOBase):
    def __init__(self, fd: int, at: int, length: int) -> None:
        self._fd = fd
        self._at = at
        self._end = at + length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        room = memoryview(buffer).cast("B")[: self._end - self._at]
        count = os.preadv(self._fd, [room], self._at) if room else 0
        self._at += count
        return count
