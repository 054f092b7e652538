"""Who comes to a shared supervisor by hand: says what a test wants, and hears the answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator
from typing import Any

from compilepool.client.connection.configuration import for_all_clients
from compilepool.wire.channel import Channel
from compilepool.wire.joining import Joining
from compilepool.wire.meeting_place import MeetingPlace
from compilepool.wire.messages import Kind, Message, encode
from compilepool.wire.payloads import of_message
from compilepool.wire.visiting import PoolLook
from tests.proc import PATIENCE_S
from tests.processes.garbage import small_config


class Guest:
    """A connection to a shared supervisor, with which it need not agree.

    Args:
        name: the pool's name; None: the only one there is.
    """

    def __init__(self, name: str | None = None) -> None:
        with MeetingPlace() as place:
            if name is None:
                (name,) = place.names()
            sock = place.connect(name)
        assert sock is not None
        self.channel = Channel(sock)

    def say(self, packet: bytes, *fds: int) -> None:
        """Send a packet; it may have been thrown out already."""
        with contextlib.suppress(ConnectionError):
            self.channel.send_packet(packet, fds, wait=True)

    def hear(self) -> list[Message] | None:
        """The next packet; None if the supervisor has thrown it out."""
        assert select.select([self.channel], [], [], PATIENCE_S)[0], "nothing is heard"
        return self.channel.receive()

    def is_thrown_out(self) -> bool:
        """Whether it is thrown out, sooner or later."""
        while (messages := self.hear()) is not None:
            for message in messages:
                for fd in message.fds:
                    os.close(fd)
        return True

    def joins(self) -> int:
        """Join as a real client does. Returns the supervisor's pid."""
        with pidfd_of(os.getpid()) as pidfd:
            self.say(joining_packet(), pidfd)
        messages = self.hear()
        assert messages is not None
        (message,) = messages
        assert message.kind is Kind.CONFIGURED
        for fd in message.fds:
            os.close(fd)
        return message.id


@contextlib.contextmanager
def guests(count: int = 1, name: str | None = None) -> Iterator[list[Guest]]:
    """Several guests, who leave at the end."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Guest(name))
            stack.callback(found[-1].channel.close)
        yield found


@contextlib.contextmanager
def pidfd_of(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def view() -> PoolLook:
    """What the only shared pool says of itself."""
    with guests() as (guest,):
        guest.say(encode(Message(Kind.LOOK)))
        messages = guest.hear()
    assert messages is not None
    (message,) = messages
    assert message.kind is Kind.LOOKED
    *payload_fds, pidfd = message.fds
    os.close(pidfd)
    return PoolLook.of_payload(of_message(message._replace(fds=tuple(payload_fds))))


def join_message(**fields: Any) -> Message:
    """A JOIN to the only pool there is, but for some fields."""
    identity = fields.get("identity") if "identity" in fields else view().identity
    joining = Joining(str(identity), os.getpid(), "guest", 0.0, (), False, 30)
    body = json.dumps({**joining._asdict(), **fields}).encode()
    return Message(Kind.JOIN, body=body)


def joining_packet(**fields: Any) -> bytes:
    """JOIN and CONFIGURE in one packet. One descriptor travels with it."""
    join = join_message(**fields)._replace(fds=(-1,))
    return encode(join) + encode(configure_message())


def configure_message() -> Message:
    message = for_all_clients(small_config()).payload().message(Kind.CONFIGURE)
    assert not message.fds
    return message
