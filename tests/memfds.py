"""Memfds for tests, good and strange ones, and what is in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from compilepool.wire.channel import close_all
from compilepool.wire.payloads import Payload, Unpacked

ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@contextlib.contextmanager
def closed(*fds: int) -> Iterator[None]:
    try:
        yield
    finally:
        close_all(fds)


def memfd(content: bytes, seals: int = ALL_SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def sparse_memfd(head: bytes, size: int) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, head)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def unpack(payload: Payload) -> list[bytes]:
    with Unpacked(payload) as unpacked:
        return [bytes(unpacked.stream), *map(bytes, unpacked.buffers)]
