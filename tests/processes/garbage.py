"""Nonsense to send, and what it must not do to whoever gets it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from hypothesis import strategies as st

from compilepool import CompilePool
from compilepool.client.connection.setup import PoolSetup
from compilepool.client.options import PoolOptions
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Form, Kind, Message, encode
from compilepool.wire.payloads import Payload
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import submit_message
from compilepool.wire.usage import Usage, result_message
from compilepool.wire.worker_start import WorkerOrders
from tests.conftest import MARK
from tests.proc import PATIENCE_S, command_line, pids_with_environment, pool_processes

HEADER = struct.Struct("<IBBBBQ")


def small_config() -> PoolConfig:
    return PoolSetup(PoolOptions(1, [], None, (), "fork", None, capture=False)).config


def own_processes() -> list[str]:
    """The command lines of the processes that this test has started, and what is below them."""
    pids = pids_with_environment(f"{MARK}={os.environ[MARK]}")
    return [command_line(pid) for pid in pids]


def send(channel: Channel, packet: bytes, fds: tuple[int, ...] = ()) -> None:
    # It may have dropped us already.
    with contextlib.suppress(ConnectionError):
        channel.send_packet(packet, fds, wait=True)


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


ORDERS = WorkerOrders().encode()


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


def with_usage(message: Message, usage: Usage) -> Message:
    """A RESULT that tells it, with whatever payload."""
    head = result_message(0, 0, Payload(Form.INLINE), usage).body
    return message._replace(body=head + message.body)


def assert_works_on(pool: CompilePool, supervisor_pid: int) -> None:
    assert [pool.submit(abs, -i).result(PATIENCE_S) for i in range(4)] == [0, 1, 2, 3]
    assert pool_processes("supervisor") == [supervisor_pid]
