"""Nonsense from a supervisor, to its client and its fork server: nobody goes on with it."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool import CompilePool
from compilepool.linux import pidfds
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.channel import Channel, close_all
from compilepool.wire.messages import Form, Kind, Message, encode
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.serializers import dump_payload
from compilepool.wire.status_page import make_status
from compilepool.wire.submission import DEFAULT_TERMS, job_message
from compilepool.wire.usage import NO_USAGE
from compilepool.wire.worker_start import WorkerFds
from tests.proc import PATIENCE_S, is_alive, pool_process, wait_until
from tests.processes.garbage import (
    HEADER,
    ORDERS,
    PACKETS,
    assert_works_on,
    own_processes,
    send,
    small_config,
    with_usage,
)

PIDFD_GETFD = 438
"""The system call, pidfd_getfd(2); the same number on every architecture."""


def descriptor_of(pid: int, number: int) -> int:
    """A copy of another process's descriptor."""
    pidfd = os.pidfd_open(pid)
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, number, 0))
    os.close(pidfd)
    if fd < 0:
        pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return fd


SUPERVISORS_NONSENSE = {
    "zeros": (bytes(16), 0),
    "cut": (encode(Message(Kind.CANCELLED, 1))[:-1], 0),
    "oversized": (bytes(200 * 1024), 0),
    "wrong kind": (encode(Message(Kind.SUBMIT, 1)), 0),
    "no failure": (encode(pack([[b"[]"]]).message(Kind.FAILED, 1)), 0),
    "failure of wrong types": (
        encode(pack([[b'{"cause": "crash", "exitcode": "x"}']]).message(Kind.FAILED, 1)),
        0,
    ),
    "no snapshot": (encode(pack([[b"{}"]]).message(Kind.DUMPED, 1)), 0),
    "no usage": (encode(Message(Kind.RESULT, 1, 0, Form.INLINE)), 0),
    "no payload": (encode(with_usage(Message(Kind.RESULT, 1), NO_USAGE)), 0),
    "descriptor": (HEADER.pack(0, Kind.LOGGED, 0, 0, 1, 0), 1),
    "descriptors": (encode(Message(Kind.LOGGED)), 100),
}


@pytest.mark.parametrize(
    ("packet", "fd_count"), SUPERVISORS_NONSENSE.values(), ids=SUPERVISORS_NONSENSE
)
def test_a_supervisor_that_sends_nonsense_is_replaced_and_its_jobs_run_again(
    packet: bytes, fd_count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="compilepool")
    with CompilePool(1) as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        before = pool_process("supervisor")
        running = pool.submit(signal.sigtimedwait, [signal.SIGUSR2], 0.05)
        with socket.socket(fileno=descriptor_of(before, 3)) as channel:
            fds = [channel.fileno()] * fd_count
            socket.send_fds(channel, [packet], fds)
        assert running.result(PATIENCE_S) is None
        assert not is_alive(before)
        assert_works_on(pool, pool_process("supervisor"))
    assert "is replaced" in caplog.text


class ForkServer:
    """A real one, of which this process is the supervisor."""

    def __init__(self) -> None:
        self.channel, theirs = Channel.pair()
        own_pidfd = os.pidfd_open(os.getpid())
        crash_file = os.memfd_create("crash", os.MFD_CLOEXEC)
        command = [
            *process_command(["-P"], "compilepool.forkserver.server"),
            str(os.getpid()),
            "1024",
        ]
        # Its client is this process as well.
        fds = (theirs.fileno(), own_pidfd, own_pidfd, crash_file)
        pid = spawn(command, os.environ, fds)
        self.pidfd = os.pidfd_open(pid)
        theirs.close()
        close_all((own_pidfd, crash_file))

    def serve(self) -> None:
        self.channel.send(small_config().payload().message(Kind.SERVE))
        assert self.channel.receive() == [Message(Kind.READY)]

    def start_worker(self, fds: tuple[int, ...] | None = None) -> tuple[int, Channel]:
        """Its pidfd, and the link to it."""
        ours, theirs = Channel.pair()
        status = make_status()
        with open(os.devnull, "w") as crash:
            own = WorkerFds(theirs.fileno(), crash.fileno(), status, None, None).flat()
            fds = own if fds is None else fds
            self.channel.send(Message(Kind.START_WORKER, 1, body=ORDERS, fds=fds))
        theirs.close()
        os.close(status)
        (message,) = self.channel.receive() or []
        assert (message.kind, message.id, len(message.fds)) == (Kind.WORKER_STARTED, 1, 1)
        return message.fds[0], ours

    def close(self) -> None:
        pidfds.send_signal(self.pidfd, signal.SIGKILL)
        pidfds.wait_dead(self.pidfd, PATIENCE_S)
        pidfds.reap(self.pidfd)
        os.close(self.pidfd)
        self.channel.close()


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def leave_processes() -> None:
    """A job that never ends, and what it starts neither."""
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            break
    signal.pause()


FORK_SERVERS_NONSENSE = {
    "zeros": (bytes(16), 0),
    "cut": (encode(Message(Kind.START_WORKER, 2))[:-1], 0),
    "oversized": (bytes(200 * 1024), 0),
    "wrong kind": (encode(Message(Kind.JOB, 2)), 0),
    "no orders": (encode(Message(Kind.START_WORKER, 2)), 3),
    "wrong orders": (encode(Message(Kind.START_WORKER, 2, body=b'[["x"], 1]')), 3),
    "no descriptors": (encode(Message(Kind.START_WORKER, 2, body=ORDERS)), 0),
    "too many descriptors": (HEADER.pack(0, Kind.START_WORKER, 0, 0, 5, 2), 5),
    "nobody's descriptors": (encode(Message(Kind.START_WORKER, 2, body=ORDERS)), 2),
    "hang-up": (b"", 0),
}


@pytest.mark.parametrize(
    ("packet", "fd_count"), FORK_SERVERS_NONSENSE.values(), ids=FORK_SERVERS_NONSENSE
)
def test_a_fork_server_that_is_sent_nonsense_ends_with_all_that_is_below_it(
    fork_server: ForkServer, packet: bytes, fd_count: int
) -> None:
    fork_server.serve()
    worker, link = fork_server.start_worker()
    assert link.receive() == [Message(Kind.READY)]
    link.send(job_message(1, DEFAULT_TERMS, dump_payload((leave_processes, (), {}))))
    assert wait_until(lambda: len(own_processes()) == 4)
    send(fork_server.channel, packet, (worker,) * fd_count)
    assert pidfds.wait_dead(fork_server.pidfd, PATIENCE_S)
    assert pidfds.wait_dead(worker, 0)
    assert own_processes() == []
    assert pidfds.reap(fork_server.pidfd) == 0
    os.close(worker)
    link.close()


@pytest.mark.parametrize(
    "payload",
    [pack([[body]]) for body in (b"", b"{}", b"[" * 60_000)] + [Payload(Form.INLINE_MANY, b"x")],
    ids=["nothing", "empty", "nested", "no layout"],
)
def test_a_fork_server_that_is_configured_with_nonsense_ends(
    fork_server: ForkServer, payload: Payload
) -> None:
    fork_server.channel.send(payload.message(Kind.SERVE))
    assert pidfds.wait_dead(fork_server.pidfd, PATIENCE_S)
    assert pidfds.reap(fork_server.pidfd) == 0


@given(st.lists(PACKETS, min_size=1, max_size=3), st.booleans())
@settings(max_examples=10)
def test_a_fork_server_that_is_sent_anything_ends_with_its_supervisor(
    packets: list[bytes], is_serving: bool
) -> None:
    server = ForkServer()
    if is_serving:
        server.serve()
    for packet in packets:
        send(server.channel, packet)
    server.channel.shutdown_output()
    assert pidfds.wait_dead(server.pidfd, PATIENCE_S)
    assert own_processes() == []
    server.close()


def test_a_worker_that_gets_descriptors_that_are_none_of_its_own_dies_alone(
    fork_server: ForkServer,
) -> None:
    fork_server.serve()
    worker, link = fork_server.start_worker((fork_server.pidfd,) * 3)
    (message,) = fork_server.channel.receive() or []
    assert (message.kind, json.loads(message.body)["exitcode"]) == (Kind.WORKER_EXITED, 1)
    assert not pidfds.wait_dead(fork_server.pidfd, 0)
    os.close(worker)
    link.close()
