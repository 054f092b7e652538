"""Memfds that are written again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from compilepool.wire.messages import Kind
from compilepool.wire.payloads import Unpacked, of_message, pack
from compilepool.wire.spares import Spares
from tests.memfds import is_open, unpack


def large(byte: bytes, size: int = 100_000) -> list[list[bytes]]:
    return [[byte * size]]


def test_a_memfd_is_written_again_when_it_has_been_read() -> None:
    with contextlib.closing(Spares(2)) as spares:
        first = pack(large(b"x"), spares=spares)
        message = first._replace(fd=os.dup(first.fd)).message(Kind.RESULT)
        spares.put(first.fd)
        second = pack(large(b"y"), spares=spares)
        assert second.fd != first.fd, "nobody has read the first"
        second.close()
        with Unpacked(of_message(message), may_be_written_again=True) as unpacked:
            assert bytes(unpacked.stream) == b"x" * 100_000
        third = pack(large(b"z", 70_000), spares=spares)
        assert third.fd == first.fd
        assert unpack(third) == [b"z" * 70_000]


@pytest.mark.parametrize("size", [100_000, 3 << 20])
def test_only_so_many_memfds_are_kept_and_no_large_ones(size: int) -> None:
    spares = Spares(2)
    fds = [pack(large(b"x", size), spares=spares).fd for _ in range(4)]
    for fd in fds:
        spares.put(fd)
    kept = [fd for fd in fds if is_open(fd)]
    assert kept == (fds[2:] if size == 100_000 else [])
    spares.close()
    assert not any(is_open(fd) for fd in fds)


def test_a_file_that_has_the_number_of_a_spare_is_left_alone(tmp_path: Path) -> None:
    spares = Spares(2)
    for fd in [pack(large(b"x"), spares=spares).fd for _ in range(2)]:
        spares.put(fd, is_read=True)
        os.close(fd)
        path = tmp_path / str(fd)
        path.write_bytes(b"data of the user's")
        assert os.open(path, os.O_RDWR) == fd
        spares.put(fd, is_read=True)
    assert spares.take() == -1
    spares.close()
    for path in tmp_path.iterdir():
        assert path.read_bytes() == b"data of the user's"
        os.close(int(path.name))
