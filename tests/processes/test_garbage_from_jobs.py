"""Nonsense from a job, by its worker's socket, to the supervisor: that job fails alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool import CompilePool, CompilePoolError, WorkerCrashed
from compilepool.wire.messages import Form, Kind, Message, Outcome, encode
from compilepool.wire.payloads import pack
from compilepool.wire.usage import NO_USAGE, Usage, lost_result
from tests.proc import PATIENCE_S, pool_process
from tests.processes.garbage import HEADER, PACKETS, assert_works_on, with_usage, workers_socket


def send_result_without_descriptor() -> None:
    """Forge this job's result: one that has lost its payload on the way. Then do not go on."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                lost = lost_result(1, NO_USAGE)
                os.write(int(name), encode(lost))
    signal.pause()


def test_a_result_that_lost_its_descriptor_on_the_way_fails_its_job_only() -> None:
    with CompilePool(1) as pool:
        error = pool.submit(send_result_without_descriptor).exception(PATIENCE_S)
        assert type(error) is CompilePoolError
        assert "too many open files" in str(error)
        os.kill(pool_process("worker"), signal.SIGKILL)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def send_as_worker(packets: list[bytes], paths: tuple[str, ...] = ()) -> None:
    """A job that never ends by itself."""
    with workers_socket() as channel:
        for packet in packets:
            fds = [os.open(path, os.O_RDONLY) for path in paths]
            socket.send_fds(channel, [packet], fds)
    signal.pause()


def hang_up_as_worker() -> None:
    with workers_socket() as channel:
        channel.shutdown(socket.SHUT_RDWR)
    signal.pause()


def inline(kind: Kind, id: int = 0, flag: int = 0) -> bytes:
    return encode(Message(kind, id, flag, Form.INLINE, b"x"))


def is_refused(packet: bytes) -> bool:
    """Not a packet that nobody notices: the sender would wait for ever."""
    return packet != b""


WORKERS_NONSENSE = {
    "zeros": bytes(16),
    "cut": encode(Message(Kind.READY))[:-1],
    "oversized": bytes(200 * 1024),
    "wrong kind": encode(Message(Kind.WARM_UP)),
    "ready again": encode(Message(Kind.READY)),
    "result of another job": encode(
        with_usage(Message(Kind.RESULT, 12345, 0, Form.INLINE), NO_USAGE)
    ),
    "result without usage": inline(Kind.RESULT, 1),
    "result without payload": encode(with_usage(Message(Kind.RESULT, 1), NO_USAGE)),
    "result with wrong times": encode(
        with_usage(Message(Kind.RESULT, 1, 0, Form.INLINE), Usage(float("nan")))
    ),
    "importing": encode(Message(Kind.IMPORTING, body=b"json")),
    "preload failed": encode(Message(Kind.PRELOAD_FAILED, body=b'{"module": "a", "text": "b"}')),
    "initializer failed": inline(Kind.INITIALIZER_FAILED, flag=Outcome.RAISED),
    "descriptors announced": HEADER.pack(0, Kind.RESULT, 0, Form.MEMFD, 1, 1),
    "several, the last wrong": encode(Message(Kind.IMPORTING, body=b"x")) * 50 + b"x",
}


def assert_only_that_job_fails(pool: CompilePool, job: Callable[..., None], *args: object) -> None:
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1
    supervisor_pid = pool_process("supervisor")
    other = pool.submit(signal.sigtimedwait, [signal.SIGUSR2], 0.05)
    bad = pool.options(name="bad").submit(job, *args)
    others = [pool.submit(abs, -i) for i in range(4)]
    error = bad.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert error.job == "bad"
    assert "nonsense" in str(error)
    assert other.result(PATIENCE_S) is None
    assert [future.result(PATIENCE_S) for future in others] == [0, 1, 2, 3]
    assert_works_on(pool, supervisor_pid)


@pytest.mark.parametrize("packet", WORKERS_NONSENSE.values(), ids=WORKERS_NONSENSE)
def test_a_job_that_sends_nonsense_fails_alone(pool: CompilePool, packet: bytes) -> None:
    assert_only_that_job_fails(pool, send_as_worker, [packet])


@pytest.mark.parametrize("paths", [("/",), ("/",) * 70], ids=len)
@pytest.mark.parametrize("kind", [Kind.READY, Kind.RESULT, Kind.INITIALIZER_FAILED])
def test_a_job_that_sends_descriptors_fails_alone(
    pool: CompilePool, kind: Kind, paths: tuple[str, ...]
) -> None:
    packet = bytearray(encode(Message(kind, 12345, form=Form.MEMFD)))
    packet[7] = len(paths)
    assert_only_that_job_fails(pool, send_as_worker, [bytes(packet)], paths)


def test_a_job_that_hangs_up_on_the_supervisor_fails_alone(pool: CompilePool) -> None:
    assert_only_that_job_fails(pool, hang_up_as_worker)


@given(st.lists(PACKETS.filter(is_refused), min_size=1, max_size=3))
@settings(max_examples=6)
@example([HEADER.pack(0, Kind.WORKER_STARTED, 0, 0, 0, 1)])
def test_a_job_that_sends_anything_fails_alone(packets: list[bytes]) -> None:
    # What looks like nonsense may be right by chance; the last packet never is.
    with CompilePool(1) as pool:
        bad = pool.submit(send_as_worker, [*packets, b"nonsense"])
        assert isinstance(bad.exception(PATIENCE_S), WorkerCrashed)
        assert_works_on(pool, pool_process("supervisor"))


def forge_result(flag: int, form: int, body: bytes, kind_of_fd: str) -> None:
    """As the first job of a pool, whose number is 1: send a result, and exit."""
    fds = []
    if kind_of_fd == "directory":
        fds = [os.open("/", os.O_RDONLY)]
    elif kind_of_fd:
        payload = pack([[b"x"], [b"y"]], inline_limit=-1)
        fds = [payload.fd]
        if kind_of_fd == "write-only":
            fds = [os.open(f"/proc/self/fd/{payload.fd}", os.O_WRONLY)]
    body = with_usage(Message(Kind.RESULT, body=body), NO_USAGE).body
    header = HEADER.pack(len(body), Kind.RESULT, flag, form, len(fds), 1)
    with workers_socket() as channel:
        socket.send_fds(channel, [header + body], fds)
    os._exit(0)


@pytest.mark.parametrize(
    ("flag", "form", "body", "fd"),
    [
        (Outcome.RETURNED, Form.INLINE, b"no pickle", ""),
        (Outcome.RETURNED, Form.INLINE_MANY, b"no layout", ""),
        (Outcome.RETURNED, Form.MEMFD, b"", "directory"),
        (Outcome.RETURNED, Form.MEMFD, b"", "write-only"),
        (Outcome.RAISED, Form.MEMFD, b"", "good"),
        (Outcome.RAISED, Form.INLINE, b"[" * 60_000, ""),
        (Outcome.UNSERIALIZABLE, Form.INLINE, b"[]", ""),
        (Outcome.UNSERIALIZABLE, Form.INLINE, b"{}", ""),
        (77, Form.INLINE, b"\xff", ""),
    ],
)
def test_a_result_that_is_none_fails_its_job_alone(
    flag: int, form: Form, body: bytes, fd: str
) -> None:
    with CompilePool(1) as pool:
        bad = pool.options(name="bad").submit(forge_result, flag, form, body, fd)
        error = bad.exception(PATIENCE_S)
        assert isinstance(error, CompilePoolError)
        assert "'bad'" in str(error)
        assert_works_on(pool, pool_process("supervisor"))
