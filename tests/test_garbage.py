"""Nonsense on every link, between real processes: it costs whoever sent it, and nobody else."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilepool import CompilePool, CompilePoolError, WorkerCrashed
from compilepool.client.options import PoolOptions
from compilepool.client.session.setup import PoolSetup
from compilepool.client.session.supervisor_process import SupervisorProcess
from compilepool.linux import pidfds
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.channel import Channel, close_all
from compilepool.wire.messages import MAX_PACKET, Form, Kind, Message, Outcome, encode
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.serializers import dump_payload
from compilepool.wire.status_page import make_status
from compilepool.wire.submission import DEFAULT_TERMS, JobTerms, job_message, submit_message
from compilepool.wire.usage import NO_USAGE, Usage, lost_result, result_message
from compilepool.wire.worker_start import WorkerFds, WorkerOrders
from tests.conftest import MARK
from tests.processes import (
    PATIENCE_S,
    command_line,
    is_alive,
    pids_with_environment,
    pool_process,
    pool_processes,
    wait_until,
)

MEMORY = 1 << 30
"""Bytes of address space. A supervisor needs a tenth; one that believes what it is told, more."""

HEADER = struct.Struct("<IBBBBQ")
PIDFD_GETFD = 438
"""The system call, pidfd_getfd(2); the same number on every architecture."""


def small_config() -> PoolConfig:
    return PoolSetup(PoolOptions(1, [], None, (), "fork", None, capture=False)).config


def own_processes() -> list[str]:
    """The command lines of the processes that this test has started, and what is below them."""
    pids = pids_with_environment(f"{MARK}={os.environ[MARK]}")
    return [command_line(pid) for pid in pids]


@contextlib.contextmanager
def supervisor() -> Iterator[SupervisorProcess]:
    process = SupervisorProcess(os.environ)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        yield process
    finally:
        process.bury(0)
        process.close()


def send(channel: Channel, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    # It may have dropped us already.
    with contextlib.suppress(ConnectionError):
        channel.send_packet(packet, fds, wait=True)


def configure(process: SupervisorProcess, config: PoolConfig) -> None:
    process.channel.send(config.payload().message(Kind.CONFIGURE))


def assert_drops_its_client(process: SupervisorProcess) -> None:
    """Not a traceback, which would be exit code 1, nor our SIGKILL after a while."""
    assert process.bury(PATIENCE_S) == 0
    assert own_processes() == []


def headers() -> st.SearchStrategy[bytes]:
    """Headers that look right, and are not, mostly."""
    return st.builds(
        HEADER.pack,
        st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1)),
        st.one_of(st.sampled_from([int(kind) for kind in Kind]), st.integers(0, 255)),
        st.integers(0, 255),
        st.one_of(st.integers(0, 3), st.integers(0, 255)),
        st.one_of(st.integers(0, 2), st.integers(0, 255)),
        st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1)),
    )


PACKETS = st.one_of(
    st.binary(max_size=200),
    st.builds(bytes.__add__, headers(), st.binary(max_size=100)),
    st.builds(lambda byte: byte * (200 * 1024), st.binary(min_size=1, max_size=1)),
)
WELL_MEANT = [
    submit_message(1, "job", Payload(Form.INLINE, b"not a pickle")),
    submit_message(2, "job", Payload(Form.INLINE_MANY, struct.pack("<I4xQ", 1, 2**63))),
    Message(Kind.DUMP, 1),
    Message(Kind.CANCEL, 1),
    Message(Kind.CANCEL_QUEUED),
    Message(Kind.WARM_UP),
    Message(Kind.SHUTDOWN, flag=1),
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A packet of messages that a client sends, with some bytes changed."""
    packet = bytearray(b"".join(encode(draw(st.sampled_from(WELL_MEANT))) for _ in range(2)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(packet) - 1))
        packet[at] ^= draw(st.integers(1, 255))
    return bytes(packet)


# From a client to its supervisor


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


ORDERS = WorkerOrders().encode()
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
        process.channel.send(Message(Kind.SUBMIT, 5, 0, Form.MEMFD))
        lost = lost_result(5, NO_USAGE)
        assert process.channel.receive() == [lost]
        process.channel.send(Message(Kind.SHUTDOWN))
        assert process.bury(PATIENCE_S) == 0


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
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, struct.pack("<I4xQ", 1, 2**31 - 1024))
    os.ftruncate(fd, 2**31)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


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
        assert set(kinds) == {Kind.FAILED, Kind.NO_WORKERS}
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


# From a job, with its worker's socket, to the supervisor


def workers_socket() -> socket.socket:
    """The one that its jobs come through."""
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                found = socket.socket(fileno=os.dup(int(fd)))
                if found.type == socket.SOCK_SEQPACKET:
                    return found
                found.close()
    raise LookupError("this worker has no socket")


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


def with_usage(message: Message, usage: Usage) -> Message:
    """A RESULT that tells it, with whatever payload."""
    head = result_message(0, 0, Payload(Form.INLINE), usage).body
    return message._replace(body=head + message.body)


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


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with CompilePool(2) as pool:
        yield pool


def assert_works_on(pool: CompilePool, supervisor_pid: int) -> None:
    assert [pool.submit(abs, -i).result(PATIENCE_S) for i in range(4)] == [0, 1, 2, 3]
    assert pool_processes("supervisor") == [supervisor_pid]


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


# From a supervisor to its client


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


# From a supervisor to its fork server


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
