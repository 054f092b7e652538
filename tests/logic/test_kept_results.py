"""Results that are kept for later jobs, and results that several processes read."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import cast

import pytest

from compilepool.supervisor.clients import Client, Clients
from compilepool.supervisor.crash_news import CrashNews
from compilepool.supervisor.jobs import Jobs
from compilepool.supervisor.kept_results import KeptResults
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import RunTable, Waiter
from compilepool.wire.channel import close_all, close_messages
from compilepool.wire.messages import REUSED, Form, Kind, Message, Outcome, ProtocolError
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.spares import Spares, seal
from compilepool.wire.submission import JobTerms
from compilepool.wire.usage import NO_USAGE, lost_result, result_message
from tests.memfds import is_open

LARGE = 100_000  # bytes; in a memfd


class Link:
    """Notes what a client is told."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)


class Asker:
    """A client that asks for kept results."""

    def __init__(self) -> None:
        self.link = Link()
        self.client = Client(cast(ClientLink, self.link))

    def gets(self, kept: KeptResults, flight: str) -> bytes:
        """The body of what was kept, and what is in the memfd; empty if nothing was kept."""
        if not kept.answer(Waiter(self.client, 7), flight):
            assert not self.link.heard
            return b""
        (message,) = self.link.heard
        self.link.heard.clear()
        assert (message.kind, message.id, message.flag) == (Kind.RESULT, 7, REUSED)
        content = b"".join(os.pread(fd, LARGE * 2, 0) for fd in message.fds)
        close_all(message.fds)
        return message.body + content


@pytest.fixture
def asker() -> Asker:
    return Asker()


def small(byte: bytes) -> Message:
    return Message(Kind.RESULT, form=Form.INLINE, body=byte * 1000)


@contextmanager
def large(byte: bytes) -> Iterator[Message]:
    message = result_message(0, Outcome.RETURNED, pack([[byte * LARGE]]), NO_USAGE)
    seal(message.fds[0])
    yield message
    close_all(message.fds)


def test_what_was_used_least_recently_goes_first(asker: Asker) -> None:
    kept = KeptResults(3 * 2100, 8)
    for flight in ("a", "b", "c"):
        kept.keep(flight, small(flight.encode()), None)
    assert asker.gets(kept, "a")
    kept.keep("d", small(b"d"), None)
    assert [flight for flight in "abcd" if asker.gets(kept, flight)] == ["a", "c", "d"]
    kept.keep("a", small(b"A"), None)
    assert asker.gets(kept, "a") == b"A" * 1000
    assert len(kept) == 3


def test_output_counts_and_comes_before_the_result(asker: Asker) -> None:
    kept = KeptResults(10_000, 8)
    kept.keep("a", small(b"a"), b"said")
    assert kept.answer(Waiter(asker.client, 7), "a")
    log, result = asker.link.heard
    assert log == Message(Kind.LOG, 7, body=b"said")
    assert result.kind is Kind.RESULT
    kept.keep("b", small(b"b"), b"x" * 9000)
    assert len(kept) == 1, "there was room for one of them"
    kept.keep("c", small(b"c"), b"x" * 90_000)
    assert len(kept) == 1, "there was no room for it at all"


def test_only_so_many_descriptors_are_kept_and_all_are_closed(asker: Asker) -> None:
    kept = KeptResults(10 * LARGE, 2)
    before = set(os.listdir("/proc/self/fd"))
    for flight in ("a", "b", "c"):
        with large(flight.encode()) as result:
            kept.keep(flight, result, None)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 2
    assert b"c" * LARGE in asker.gets(kept, "c")
    assert not asker.gets(kept, "a")
    kept.clear()
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_kept_and_nothing_given_without_a_descriptor(asker: Asker) -> None:
    kept = KeptResults(10 * LARGE, 8)
    kept.keep("lost", lost_result(0, NO_USAGE), None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with large(b"a") as a, large(b"b") as b:
        kept.keep("a", a, None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            kept.keep("b", b, None)
            assert not asker.gets(kept, "a"), "the run runs again"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert asker.gets(kept, "a")
    assert len(kept) == 1
    kept.clear()


def test_a_result_that_cannot_be_sealed_is_refused_if_several_jobs_wait() -> None:
    """Its worker would write it again after the first has read it."""
    scheduler: Scheduler[str] = Scheduler(1)
    runs, kept, clients = RunTable(), KeptResults(), Clients()
    jobs = Jobs(runs, scheduler, kept, CrashNews(clients))
    asker = Asker()
    clients.add(asker.client)
    for id in (1, 2, 3):
        terms = JobTerms(flight="alone" if id == 1 else "shared")
        jobs.submit(asker.client, id, "job", terms, Payload(Form.INLINE))
    messages = []
    for run in (1, 2):
        fd = os.memfd_create("foreign", os.MFD_CLOEXEC)
        messages.append(Message(Kind.RESULT, run, 0, Form.MEMFD, small(b"x").body, (fd,)))
    jobs.make_shareable(1, messages[0])
    jobs.ended(1, messages[0])
    assert len(kept) == 0
    assert [message.id for message in asker.link.heard] == [1]
    with pytest.raises(ProtocolError, match="cannot be sealed"):
        jobs.make_shareable(2, messages[1])
    assert not is_open(messages[1].fds[0])
    close_messages(asker.link.heard)


def test_a_spare_that_is_sealed_is_not_written_again() -> None:
    with closing(Spares(2)) as spares:
        fd = pack([[b"x" * LARGE]], spares=spares).fd
        spares.put(fd)
        seal(fd)
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        assert spares.take() == -1
        assert not is_open(fd)
