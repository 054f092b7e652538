"""Who comes to a shared pool with nonsense is thrown out alone, and no program notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from compilepool.client.connection import meeting
from compilepool.wire.meeting_place import MeetingPlace
from compilepool.wire.messages import Kind, Message, encode
from tests.proc import is_alive, wait_until
from tests.processes.garbage import PACKETS, mutations
from tests.processes.guests import (
    configure_message,
    guests,
    join_message,
    joining_packet,
    pidfd_of,
    view,
)
from tests.sharing import Program, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def program(runtime: Path) -> Iterator[Program]:
    """A program whose pool goes on all the time, whoever else comes."""
    with programs(1) as (program,):
        program.run("pool.submit(jobs.sleep, 0).result()")
        (supervisor,) = supervisors()
        yield program
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert supervisors() == [supervisor]
        assert program.end() == ""


def test_who_says_nothing_of_sense(program: Program) -> None:
    join, configure = join_message(), configure_message()
    packet = joining_packet()
    garbage = [
        b"x",
        b"\0" * 16,
        b"\xff" * 4096,
        packet[: len(packet) // 2],
        packet[:-1],
        encode(join),
        encode(configure),
        encode(configure) + encode(join),
        encode(join) * 2,
        packet + encode(configure),
        encode(Message(Kind.SHUTDOWN)),
        encode(Message(Kind.LOOK)) * 2,
        encode(Message(Kind.CONFIGURED)),
    ]
    for packet in garbage:
        with guests() as (guest,):
            guest.say(packet)
            assert guest.is_thrown_out()


@settings(max_examples=60)
@given(PACKETS)
def say_all(packet: bytes) -> None:
    with guests() as (guest,):
        guest.say(packet)


def test_whatever_somebody_says_first(program: Program) -> None:
    say_all()


WRONG_FIELDS = [
    {"identity": 7},
    {"pid": "7"},
    {"name": None},
    {"linger_s": -1},
    {"linger_s": float("nan")},
    {"linger_s": float("inf")},
    {"linger_s": 10**400},
    {"cpus": 3},
    {"cpus": ["0"]},
    {"cpus": [-1]},
    {"cpus": [2**70]},
    {"counts_cpus": 2},
    {"log_level": "high"},
    {"more": 1},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS, ids=lambda fields: str(fields)[:30])
def test_wrong_fields_are_refused(program: Program, fields: dict[str, object]) -> None:
    with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
        guest.say(joining_packet(**{"identity": view().identity, **fields}), pidfd)
        messages = guest.hear()
        assert messages is not None
        assert [message.kind for message in messages] == [Kind.REFUSED]
        assert guest.is_thrown_out()


def test_who_sends_something_else_than_a_pidfd_is_refused(program: Program, tmp_path: Path) -> None:
    (tmp_path / "pidfd:[1]").touch()
    memfd = os.memfd_create("pidfd:[1]")
    file = os.open(tmp_path / "pidfd:[1]", os.O_RDONLY)
    try:
        for fds in ((), (memfd,), (file,)):
            with guests() as (guest,):
                join = join_message()._replace(fds=(-1,) * len(fds))
                guest.say(encode(join) + encode(configure_message()), *fds)
                messages = guest.hear()
                assert messages is not None
                assert messages[0].kind is Kind.REFUSED
                assert b"pidfd" in messages[0].body
                assert guest.is_thrown_out()
    finally:
        os.close(memfd)
        os.close(file)


def test_who_sends_more_descriptors_than_that_is_thrown_out(program: Program) -> None:
    with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
        join = join_message()._replace(fds=(-1, -1))
        guest.say(encode(join) + encode(configure_message()), pidfd, pidfd)
        assert guest.is_thrown_out()
    with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
        guest.say(encode(Message(Kind.LOOK, fds=(-1,))), pidfd)
        assert guest.is_thrown_out()


def test_the_pidfd_of_a_dead_process_is_that_of_a_client_that_has_left(program: Program) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    with guests() as (guest,), pidfd_of(dead.pid) as pidfd:
        dead.wait()
        guest.say(joining_packet(), pidfd)
        assert guest.is_thrown_out()
    assert wait_until(lambda: len(view().clients) == 1)


def test_another_identity_is_refused(program: Program) -> None:
    identity = view().identity
    for other in ("", "f" * len(identity), identity[:-1] + "x", identity[:20]):
        with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
            guest.say(joining_packet(identity=other), pidfd)
            messages = guest.hear()
            assert messages is not None
            assert messages[0].kind is Kind.REFUSED


def test_a_client_that_talks_nonsense_is_dropped_alone(program: Program) -> None:
    for packet in (b"x", b"\xff" * 4096, encode(Message(Kind.RESULT, 1)), joining_packet()[:-1]):
        with guests() as (guest,):
            guest.joins()
            guest.say(packet)
            assert guest.is_thrown_out()


@settings(max_examples=60)
@given(mutations())
def join_and_say_all(packet: bytes) -> None:
    with guests() as (guest,):
        guest.joins()
        guest.say(packet)


def test_whatever_a_client_says(program: Program) -> None:
    join_and_say_all()
    assert wait_until(lambda: len(view().clients) == 1)


def test_a_configuration_that_is_none_drops_only_its_client(program: Program) -> None:
    with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
        join = join_message()._replace(fds=(-1,))
        guest.say(encode(join) + encode(Message(Kind.CONFIGURE, body=b"{}")), pidfd)
        assert guest.is_thrown_out()


def test_many_who_connect_and_say_nothing_hold_nobody_up(program: Program) -> None:
    with guests(100), programs(1) as (late,):
        assert late.run("pool.submit(jobs.where).result()[1]") == program.run(
            "pool.submit(jobs.where).result()[1]"
        )
        late.end()


def test_who_says_nothing_does_not_keep_the_pool() -> None:
    with programs(1) as (program,):
        program.run("pool.submit(jobs.sleep, 0).result()")
        (supervisor,) = supervisors()
        with guests(10) as silent:
            assert program.end() == ""
            assert wait_until(lambda: not is_alive(supervisor))
            assert all(guest.is_thrown_out() for guest in silent)


@pytest.mark.parametrize("what", ["another identity", "no configuration"])
def test_who_comes_first_with_nonsense_does_not_spoil_it_for_others(what: str) -> None:
    """The test itself starts the supervisor, as a program does that dies before it joins."""
    with programs(1) as (program,):
        program.run("pool.submit(jobs.sleep, 0).result()")
        identity = view().identity
        program.end()
    wait_until(lambda: not supervisors())
    with MeetingPlace() as place:
        claim = place.claim(identity[:20])
        assert claim is not None
        meeting._start(place, claim, os.environ, [])
    with guests() as (guest,), pidfd_of(os.getpid()) as pidfd:
        if what == "another identity":
            guest.say(joining_packet(identity="f" * 64), pidfd)
        else:
            join = join_message(identity=identity)._replace(fds=(-1,))
            guest.say(encode(join) + encode(Message(Kind.CONFIGURE, body=b"{}")), pidfd)
        assert guest.is_thrown_out()
    with programs(1) as (program,):
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert program.end() == ""
