"""What the supervisor holds back from a client that does not read, by real sockets and memfds."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Form, Kind, Message
from compilepool.wire.payloads import Unpacked, of_message, pack
from tests.proc import PATIENCE_S

HEAD = b"head"


class Ends:
    """A link, and the client at its other end."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, theirs = Channel.pair()
        self.client = Channel(theirs)
        self.link = ClientLink(self.loop, ours, os.pidfd_open(os.getpid()))
        self.link.watch(lambda: None, lambda: None)

    def send(self, id: int, size: int) -> None:
        """Send the client a result of that size; it is in a memfd unless it is empty."""
        payload = pack([[b"%d" % id * size]], inline_limit=1 if size else 9)
        self.link.send(payload.message(Kind.RESULT, id, 3, HEAD))

    def receive(self) -> list[tuple[int, bytes]]:
        """The id and the content of each message of the next packet, if there is one."""
        found = []
        for message in self.client.receive(wait=False) or []:
            assert (message.flag, message.body[: len(HEAD)]) == (3, HEAD)
            with Unpacked(of_message(message, len(HEAD))) as unpacked:
                found.append((message.id, bytes(unpacked.stream)))
        return found

    def receive_rest(self) -> list[tuple[int, bytes]]:
        """All that is left, which the loop sends by itself."""
        found = self.receive()
        while self.link.has_unsent or select.select([self.client], [], [], 0)[0]:
            found += self.receive()
            if self.link.has_unsent:
                self.loop.run_once(PATIENCE_S)
        return found

    def close(self) -> None:
        self.link.forget()
        self.link.close()
        self.client.close()
        del self.link, self.loop  # which closes the loop's own descriptor


@contextlib.contextmanager
def ends() -> Iterator[Ends]:
    """A link; afterwards it has left no descriptor open, whatever it holds."""
    before = os.listdir("/proc/self/fd")
    both = Ends()
    try:
        yield both
    finally:
        both.close()
    assert os.listdir("/proc/self/fd") == before


@given(
    st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["flush", "read"])), max_size=60),
    st.integers(0, 5),
    st.sampled_from([0, 1 << 20]),
)
@settings(max_examples=60)
@example([3] * 60, 0, 0)
@example([3, 0] * 30, 5, 1 << 20)
def test_a_client_gets_all_in_order(
    steps: list[int | str], max_unread: int, spill_above: int
) -> None:
    with ends() as both:
        both.link.limit(max_unread, spill_above)
        sent: list[tuple[int, bytes]] = []
        received = []
        for step in steps:
            if step == "flush":
                both.link.flush()
            elif step == "read":
                received += both.receive()
            else:
                assert isinstance(step, int)
                sent.append((len(sent), b"%d" % len(sent) * step))
                both.send(len(sent) - 1, step)
        both.link.flush()
        assert received + both.receive_rest() == sent


@given(st.integers(0, 5), st.integers(0, 40), st.sampled_from([0, 1 << 20]))
@settings(max_examples=40)
def test_a_client_that_reads_nothing_is_sent_few_descriptors(
    max_unread: int, count: int, spill_above: int
) -> None:
    with ends() as both:
        both.link.limit(max_unread, spill_above)
        for id in range(count):
            both.send(id, 3)
            both.link.flush()
        arrived = 0
        while messages := both.client.receive(wait=False):
            arrived += len(messages)
            for message in messages:
                of_message(message, len(HEAD)).close()
        assert arrived == min(count, max_unread or 1)
        assert both.link.has_unsent == (count > arrived)


def test_a_client_is_behind_when_too_much_is_held_in_memory() -> None:
    with ends() as both:
        both.link.limit(1, 0)
        both.send(0, 3)
        for id, is_behind in ((1, False), (2, True)):
            fd = os.memfd_create("large")
            os.ftruncate(fd, 130 << 20)
            both.link.send(Message(Kind.RESULT, id, 3, Form.MEMFD, HEAD, (fd,)))
            assert both.link.is_behind == is_behind


def test_a_payload_that_cannot_be_copied_drops_the_client(tmp_path: Path) -> None:
    """So its job is not lost: the client comes again with it."""
    path = tmp_path / "write-only"
    path.write_bytes(bytes(9))
    with ends() as both:
        both.link.limit(1, 0)
        both.send(0, 3)
        fd = os.open(path, os.O_WRONLY)
        both.link.send(Message(Kind.RESULT, 1, 3, Form.MEMFD, HEAD, (fd,)))
        assert both.link.is_behind
