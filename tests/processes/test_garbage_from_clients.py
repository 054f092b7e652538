"""Nonsense from a client to its supervisor: it is dropped, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool.client.connection.supervisor_process import SupervisorProcess
from compilepool.wire.messages import MAX_PACKET, Form, Kind, Message, encode
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.serializers import dump_payload
from compilepool.wire.submission import JobTerms, submit_message
from compilepool.wire.usage import NO_USAGE, lost_result
from tests.memfds import sparse_memfd
from tests.proc import PATIENCE_S
from tests.processes.garbage import (
    HEADER,
    PACKETS,
    WELL_MEANT,
    mutations,
    own_processes,
    send,
    small_config,
)

MEMORY = 1 << 30
"""Bytes of address space. A supervisor needs a tenth; one that believes what it is told, more."""


@contextlib.contextmanager
def supervisor() -> Iterator[SupervisorProcess]:
    process = SupervisorProcess(os.environ)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        yield process
    finally:
        process.bury(0)
        process.close()


def configure(process: SupervisorProcess, config: PoolConfig) -> None:
    process.channel.send(config.payload().message(Kind.CONFIGURE))


def assert_drops_its_client(process: SupervisorProcess) -> None:
    """Not a traceback, which would be exit code 1, nor our SIGKILL after a while."""
    assert process.bury(PATIENCE_S) == 0
    assert own_processes() == []


@given(st.lists(st.one_of(PACKETS, mutations()), min_size=1, max_size=3), st.booleans())
@settings(max_examples=25)
def test_a_supervisor_survives_or_drops_a_client_that_sends_nonsense(
    packets: list[bytes], is_configured: bool
) -> None:
    with supervisor() as process:
        if is_configured:
            configure(process, small_config())
        for packet in packets:
            send(process.channel, packet)
        process.channel.shutdown_output()  # what was no nonsense, by chance, ends here
        assert_drops_its_client(process)


WRONG_TERMS = JobTerms(timeout_s=-1.0)
NONSENSE = {
    "header cut": encode(Message(Kind.WARM_UP))[:-1],
    "body cut": encode(Message(Kind.SUBMIT, 1, 0, Form.INLINE, b"abc"))[:-1],
    "huge length": HEADER.pack(2**32 - 1, Kind.SUBMIT, 0, Form.INLINE, 0, 1),
    "huge packet": bytes(200 * 1024),
    "descriptors announced": HEADER.pack(0, Kind.SUBMIT, 0, Form.MEMFD, 1, 1),
    "unknown kind": HEADER.pack(0, 99, 0, 0, 0, 0),
    "unknown form": HEADER.pack(0, Kind.SUBMIT, 0, 99, 0, 0),
    "wrong kind": encode(Message(Kind.RESULT, 1, 0, Form.INLINE, b"x")),
    "a fork server's": encode(Message(Kind.WORKER_EXITED, 1, body=b"{}")),
    "no payload": encode(Message(Kind.SUBMIT, 1, body=bytes(2))),
    "no name": encode(Message(Kind.SUBMIT, 1, 0, Form.INLINE, b"x")),
    "name cut": encode(Message(Kind.SUBMIT, 1, 0, Form.INLINE, b"\xff\xff\0\0\0\0job")),
    "terms cut": encode(Message(Kind.SUBMIT, 1, 0, Form.INLINE, b"\0\0\xff\0\0\0{}")),
    "no terms": encode(Message(Kind.SUBMIT, 1, 0, Form.INLINE, b"\0\0\x02\0\0\0[]")),
    "wrong terms": encode(submit_message(1, "job", Payload(Form.INLINE, b"x"), WRONG_TERMS)),
    "configured twice": encode(small_config().payload().message(Kind.CONFIGURE)) * 2,
}


@pytest.mark.parametrize("packet", NONSENSE.values(), ids=NONSENSE)
def test_a_supervisor_drops_a_client_that_sends_nonsense(packet: bytes) -> None:
    with supervisor() as process:
        configure(process, small_config())
        send(process.channel, packet)
        assert_drops_its_client(process)


def test_a_job_that_lost_its_descriptor_on_the_way_is_ended_and_nobody_dropped() -> None:
    """As where the supervisor has too many open files to receive it."""
    with supervisor() as process:
        configure(process, small_config())
        assert process.channel.receive() == [Message(Kind.CONFIGURED)]
        process.channel.send(Message(Kind.SUBMIT, 5, 0, Form.MEMFD))
        assert process.channel.receive() == [lost_result(5, NO_USAGE)]
        process.channel.send(Message(Kind.SHUTDOWN))
        assert process.bury(PATIENCE_S) == 0


@pytest.mark.parametrize("message", WELL_MEANT, ids=lambda message: message.kind.name)
def test_a_supervisor_drops_a_client_that_does_not_configure_it_first(message: Message) -> None:
    with supervisor() as process:
        send(process.channel, encode(message))
        assert_drops_its_client(process)


@pytest.mark.parametrize("fd_count", [1, 64, 253])
def test_a_supervisor_drops_a_client_that_sends_descriptors_for_nothing(fd_count: int) -> None:
    with supervisor() as process:
        configure(process, small_config())
        send(process.channel, encode(Message(Kind.WARM_UP)), (process.pidfd,) * fd_count)
        assert_drops_its_client(process)


CONFIGURATIONS = {
    "nothing": b"",
    "nested": b"[" * 60_000,
    "empty": b"{}",
    "a list": b"[1]",
    "wrong types": json.dumps(dict.fromkeys(PoolConfig._fields, "x")).encode(),
    "null": json.dumps(dict.fromkeys(PoolConfig._fields)).encode(),
}


@pytest.mark.parametrize("body", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_supervisor_drops_a_client_that_configures_it_with_nonsense(body: bytes) -> None:
    with supervisor() as process:
        process.channel.send(pack([[body]]).message(Kind.CONFIGURE))
        assert_drops_its_client(process)


def large_sealed_memfd() -> int:
    """A payload of 2 GiB that occupies no memory."""
    return sparse_memfd(struct.pack("<I4xQ", 1, 2**31 - 1024), 2**31)


@pytest.mark.parametrize(
    "make",
    [lambda: os.open("/", os.O_RDONLY), lambda: os.memfd_create("test"), large_sealed_memfd],
    ids=["directory", "unsealed", "large"],
)
def test_a_supervisor_drops_a_client_whose_configuration_is_in_no_proper_memfd(
    make: Callable[[], int],
) -> None:
    fd = make()
    with supervisor() as process:
        process.channel.send(Message(Kind.CONFIGURE, form=Form.MEMFD, fds=(fd,)))
        assert_drops_its_client(process)
    os.close(fd)


def test_a_configuration_that_no_process_can_be_started_with_fails_the_jobs() -> None:
    config = small_config()
    config.python_flags.append("\0")
    with supervisor() as process:
        configure(process, config)
        process.channel.send(submit_message(1, "job", dump_payload((abs, (-1,), {}))))
        kinds: list[Kind] = []
        while Kind.FAILED not in kinds:
            messages = process.channel.receive()
            assert messages, "the supervisor is dead"
            kinds += [message.kind for message in messages]
        assert set(kinds) == {Kind.CONFIGURED, Kind.FAILED, Kind.NO_WORKERS}
        process.channel.send(Message(Kind.SHUTDOWN))
        assert_drops_its_client(process)


def test_what_a_client_sends_at_length_is_not_kept() -> None:
    with supervisor() as process:
        configure(process, small_config())
        for id in range(5):
            for _ in range(200):
                process.channel.send(Message(Kind.CANCEL, id, body=bytes(MAX_PACKET // 2)))
        process.channel.send(submit_message(1, "job", dump_payload((abs, (-1,), {}))))
        kinds: list[Kind] = []
        while Kind.RESULT not in kinds:
            messages = process.channel.receive()
            assert messages, "the supervisor is dead"
            kinds = [message.kind for message in messages]
        with open(f"/proc/{process.pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        assert int(fields["VmHWM"].split()[0]) < 64 * 1024
        process.channel.send(Message(Kind.SHUTDOWN))
        assert_drops_its_client(process)
