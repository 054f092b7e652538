"""Channels and outboxes: what is sent arrives in order, and descriptors are never left open."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool.wire.channel import Channel, Outbox, close_all
from compilepool.wire.messages import (
    MAX_BODY,
    MAX_FDS,
    MAX_PACKET,
    Form,
    Kind,
    Message,
    ProtocolError,
    encode,
)
from tests.memfds import closed, is_open, memfd


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def receive_all(channel: Channel) -> list[Message]:
    received: list[Message] = []
    while messages := channel.receive(wait=False):
        received += messages
    return received


def test_messages_and_their_descriptors_arrive(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fds = tuple(memfd(bytes([i])) for i in range(MAX_FDS))
    with closed(*fds):
        assert ours.send(Message(Kind.RESULT, 2**64 - 1, 3, Form.INLINE, bytes(MAX_BODY), fds))
    (message,) = theirs.receive() or []
    with closed(*message.fds):
        assert message[:5] == (Kind.RESULT, 2**64 - 1, 3, Form.INLINE, bytes(MAX_BODY))
        assert [os.pread(fd, 1, 0) for fd in message.fds] == [bytes([i]) for i in range(MAX_FDS)]


def test_received_descriptors_are_not_inherited(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fd = memfd(b"")
    with closed(fd):
        os.set_inheritable(fd, True)
        ours.send(Message(Kind.READY, fds=(fd,)))
    (message,) = theirs.receive() or []
    with closed(*message.fds):
        assert not os.get_inheritable(message.fds[0])


def test_an_adopted_channel_is_not_inherited() -> None:
    ours, theirs = Channel.pair()
    os.set_inheritable(theirs.fileno(), True)
    channel = Channel.adopt(theirs.detach())
    assert not os.get_inheritable(channel.fileno())
    channel.close()
    assert ours.receive() is None
    ours.close()


def test_nothing_to_receive_is_not_the_end(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    assert theirs.receive(wait=False) == []
    ours.shutdown_output()
    assert theirs.receive(wait=False) is None
    assert theirs.send(Message(Kind.READY))  # the other direction goes on
    assert ours.receive() == [Message(Kind.READY)]


def test_what_a_dead_peer_had_sent_is_received_before_its_end(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    for i in range(3):
        theirs.send(Message(Kind.RESULT, i))
        ours.send(Message(Kind.JOB, i))
    theirs.close()  # with packets unread: the kernel says ECONNRESET
    assert [message.id for message in receive_all(ours)] == [0, 1, 2]
    assert ours.receive() is None
    with pytest.raises(ConnectionError):
        ours.send(Message(Kind.READY))


@pytest.mark.parametrize("fd_count", [0, 3])
def test_an_oversized_packet_is_refused(pair: tuple[Channel, Channel], fd_count: int) -> None:
    ours, theirs = pair
    fds = tuple(memfd(b"") for _ in range(fd_count))
    with closed(*fds):
        ours.send_packet(bytes(MAX_PACKET + 1), fds, wait=True)
    with pytest.raises(ProtocolError, match="oversized"):
        theirs.receive()
    ours.send(Message(Kind.READY))
    assert theirs.receive() == [Message(Kind.READY)]


def test_more_descriptors_than_any_packet_has_are_refused(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    fd = memfd(b"")
    with closed(fd):
        ours.send_packet(encode(Message(Kind.READY)), (fd,) * (MAX_FDS + 2), wait=True)
    with pytest.raises(ProtocolError, match="oversized"):
        theirs.receive()


@given(st.binary(min_size=1, max_size=100), st.integers(0, 3))
@settings(max_examples=50)
def test_a_packet_of_garbage_is_refused_and_its_descriptors_closed(
    packet: bytes, fd_count: int
) -> None:
    ours, other = Channel.pair()
    theirs = Channel(other)
    reader, writer = os.pipe()
    with closed(reader):
        with closed(writer):
            ours.send_packet(packet, (writer,) * fd_count, wait=True)
        try:
            received = theirs.receive() or []
        except ProtocolError:
            received = []
        close_all(fd for message in received for fd in message.fds)
        assert os.read(reader, 1) == b""  # nobody has the other end any more
    ours.close()
    theirs.close()


def test_sending_without_waiting_tells_that_there_is_no_room(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    count = 0
    while ours.send(Message(Kind.RESULT, count, body=bytes(MAX_BODY)), wait=False):
        count += 1
    assert count > 1
    assert [message.id for message in receive_all(theirs)] == list(range(count))


@given(st.lists(st.tuples(st.integers(0, MAX_BODY), st.integers(0, 2)), max_size=60))
@settings(max_examples=30)
@example([(MAX_BODY, 0)] * 40)
@example([(10, 2)] * 60)
@example([(0, 0)] * 60)
def test_an_outbox_keeps_the_order_when_nobody_reads(sizes: list[tuple[int, int]]) -> None:
    ours, other = Channel.pair()
    theirs = Channel(other)
    outbox = Outbox(ours)
    marks: list[int] = []
    for id, (size, fd_count) in enumerate(sizes):
        fds = tuple(memfd(b"%d" % id) for _ in range(fd_count))
        marks += fds
        outbox.put(Message(Kind.RESULT, id, body=bytes(size), fds=fds))
        outbox.flush()
    received: list[Message] = []
    while outbox:
        before = len(received)
        received += receive_all(theirs)
        assert len(received) > before
        outbox.flush()
    assert not any(is_open(fd) for fd in set(marks) - {f for m in received for f in m.fds})
    received += receive_all(theirs)
    assert [message.id for message in received] == list(range(len(sizes)))
    for message, (size, fd_count) in zip(received, sizes, strict=True):
        assert (len(message.body), len(message.fds)) == (size, fd_count)
        assert all(os.pread(fd, 9, 0) == b"%d" % message.id for fd in message.fds)
        close_all(message.fds)
    ours.close()
    theirs.close()


def test_an_outbox_puts_many_small_messages_into_one_packet(
    pair: tuple[Channel, Channel],
) -> None:
    ours, theirs = pair
    outbox = Outbox(ours)
    for id in range(100):
        outbox.put(Message(Kind.STARTED, id))
    assert theirs.receive(wait=False) == []
    outbox.flush()
    assert not outbox
    assert [message.id for message in theirs.receive() or []] == list(range(100))


def test_an_outbox_that_is_cleared_closes_its_descriptors(pair: tuple[Channel, Channel]) -> None:
    outbox = Outbox(pair[0])
    fds = [memfd(b"") for _ in range(3)]
    for fd in fds:
        outbox.put(Message(Kind.RESULT, fds=(fd,)))
    outbox.clear()
    assert not outbox
    assert not any(map(is_open, fds))


def test_an_outbox_tells_that_the_peer_is_gone(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    outbox = Outbox(ours)
    outbox.put(Message(Kind.STARTED))
    theirs.close()
    with pytest.raises(ConnectionError):
        outbox.flush()
