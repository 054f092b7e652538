"""Payloads: whole or broken, in every form, each is unpacked or refused."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool.wire.messages import Form, Kind, Message, ProtocolError
from compilepool.wire.payloads import INLINE_LIMIT, Payload, Unpacked, of_message, pack
from tests.memfds import closed, is_open, memfd, sparse_memfd, unpack


def sections() -> st.SearchStrategy[list[list[bytes]]]:
    """Sections of pieces, some empty, some longer than the alignment or a page."""
    piece = st.one_of(
        st.binary(max_size=100),
        st.builds(lambda data, times: data * times, st.binary(max_size=7), st.integers(0, 2000)),
    )
    return st.lists(st.lists(piece, max_size=4), min_size=1, max_size=5)


@given(sections(), st.sampled_from([-1, 0, 64, 1000, INLINE_LIMIT]))
@settings(max_examples=60)
def test_what_is_packed_is_unpacked_in_every_form(
    content: list[list[bytes]], inline_limit: int
) -> None:
    expected = [b"".join(pieces) for pieces in content]
    payload = pack(content, inline_limit=inline_limit)
    if payload.is_inline:
        assert len(payload.body) <= inline_limit
    message = payload.message(Kind.JOB, 7)
    assert unpack(of_message(message)) == expected
    assert payload.fd < 0 or not is_open(payload.fd)


@given(sections())
@settings(max_examples=30)
def test_a_spilled_payload_is_what_it_was(content: list[list[bytes]]) -> None:
    expected = [b"".join(pieces) for pieces in content]
    payload = pack(content, inline_limit=-1)
    spilled = payload.spill()
    assert not is_open(payload.fd)
    assert spilled.spill() is spilled
    assert unpack(spilled) == expected
    message = spilled.message(Kind.JOB)
    assert message.form is Form.MEMFD
    assert unpack(of_message(message)) == expected


@pytest.mark.parametrize("pieces", [1, 1023, 1024, 1025, 5000])
def test_any_number_of_pieces_fits_a_memfd(pieces: int) -> None:
    content = [[bytes([i % 256]) * (i % 50) for i in range(pieces)]]
    assert unpack(pack(content, inline_limit=-1)) == [b"".join(content[0])]


def test_pieces_of_wider_items_are_packed_as_their_bytes() -> None:
    wide = memoryview(struct.pack("4i", 1, 2, 3, 4)).cast("i")
    for limit in (-1, INLINE_LIMIT):
        assert unpack(pack([[b"x"], [wide]], inline_limit=limit)) == [b"x", bytes(wide)]


def test_sections_are_aligned_and_buffers_can_be_written_to() -> None:
    payload = pack([[b"x"], [b"y" * 65], [b"z"]])
    for at, byte in ((64, b"x"), (128, b"y"), (256, b"z")):
        assert payload.body[at : at + 1] == byte
    with Unpacked(payload) as unpacked:
        unpacked.buffers[0][0] = 0
        assert bytes(unpacked.buffers[0][:2]) == b"\0y"


def test_only_more_than_the_inline_limit_goes_into_a_memfd() -> None:
    assert pack([[bytes(INLINE_LIMIT)]]).form is Form.INLINE
    payload = pack([[bytes(INLINE_LIMIT + 1)]])
    assert payload.form is Form.MEMFD
    with closed(payload.fd):
        assert not os.get_inheritable(payload.fd)


def layouts() -> st.SearchStrategy[bytes]:
    """Bytes that look like INLINE_MANY or MEMFD, and are not, mostly."""
    length = st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1))
    plausible = st.builds(
        lambda count, lengths, rest: struct.pack(f"<I4x{len(lengths)}Q", count, *lengths) + rest,
        st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
        st.lists(length, max_size=5),
        st.binary(max_size=200),
    )
    return st.one_of(st.binary(max_size=200), plausible)


def assert_unpacked_or_refused(payload: Payload, size: int) -> None:
    with contextlib.suppress(ProtocolError):
        assert sum(map(len, unpack(payload))) <= size
    assert payload.fd < 0 or not is_open(payload.fd)


@given(layouts())
@settings(max_examples=200)
@example(b"")
@example(struct.pack("<I4x", 0))
@example(struct.pack("<I4x", 2**32 - 1))
@example(struct.pack("<I4xQ", 1, 2**64 - 1))
@example(struct.pack("<I4xQQ", 2, 0, 2**64 - 1))
def test_an_arbitrary_layout_is_unpacked_or_refused_in_every_form(data: bytes) -> None:
    assert_unpacked_or_refused(Payload(Form.INLINE_MANY, data), len(data))
    assert_unpacked_or_refused(Payload(Form.MEMFD, data), len(data))
    assert_unpacked_or_refused(Payload(Form.MEMFD, b"", memfd(data)), len(data))


@given(sections(), st.data())
@settings(max_examples=60)
def test_a_truncated_layout_is_refused(content: list[list[bytes]], data: st.DataObject) -> None:
    payload = pack([*content, [b"end"]], inline_limit=1 << 20)
    cut = payload.body[: data.draw(st.integers(0, len(payload.body) - 1))]
    for broken in (Payload(Form.INLINE_MANY, cut), Payload(Form.MEMFD, b"", memfd(cut))):
        with pytest.raises(ProtocolError, match="truncated"):
            unpack(broken)


def open_socket() -> int:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours.detach()


def open_pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def open_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.flush()
        return os.dup(file.fileno())


def open_write_only() -> int:
    fd = memfd(struct.pack("<I4xQ", 1, 4) + bytes(100))
    with closed(fd):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)


def open_larger_than_memory() -> int:
    size = 1 << 60
    return sparse_memfd(struct.pack("<I4xQQ", 2, 0, size - 1024), size)


def open_larger_than_the_address_space() -> int:
    size = 1 << 60
    return sparse_memfd(struct.pack("<I4xQ", 1, size - 1024), size)


STRANGE: list[Callable[[], int]] = [
    open_socket,
    open_pipe,
    open_file,
    lambda: os.open("/", os.O_RDONLY),
    lambda: os.open("/", os.O_PATH),
    lambda: os.open("/dev/zero", os.O_RDONLY),
    lambda: os.pidfd_open(os.getpid()),
    open_write_only,
    open_larger_than_memory,
    open_larger_than_the_address_space,
]
STRANGE_IDS = ["socket", "pipe", "file", "directory", "path", "device", "pidfd"]
STRANGE_IDS += ["write-only", "large buffer", "large stream"]


@pytest.mark.parametrize("make", STRANGE, ids=STRANGE_IDS)
def test_a_descriptor_that_holds_no_payload_is_refused_and_closed(make: Callable[[], int]) -> None:
    fd = make()
    with pytest.raises(ProtocolError):
        unpack(Payload(Form.MEMFD, b"", fd))
    assert not is_open(fd)


@pytest.mark.parametrize("make", STRANGE, ids=STRANGE_IDS)
def test_spilling_any_descriptor_works_or_is_refused_and_closes_it(make: Callable[[], int]) -> None:
    fd = make()
    with contextlib.suppress(ProtocolError):
        Payload(Form.MEMFD, b"", fd).spill()
    assert not is_open(fd)


@pytest.mark.parametrize(
    ("form", "fd_count"),
    [(Form.NONE, 0), (Form.NONE, 1), (Form.INLINE, 1), (Form.MEMFD, 0), (Form.MEMFD, 2)],
)
def test_a_message_with_the_wrong_descriptors_has_no_payload(form: Form, fd_count: int) -> None:
    fds = tuple(memfd(b"") for _ in range(fd_count))
    with pytest.raises(ProtocolError, match="without a proper payload"):
        of_message(Message(Kind.JOB, form=form, fds=fds))
    assert not any(map(is_open, fds))
