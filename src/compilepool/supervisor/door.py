"""The door of a shared supervisor: who comes in, and when it is shut for good."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from compilepool.supervisor.clients import Clients
from compilepool.supervisor.entrance import Entrance
from compilepool.supervisor.links.loop import Loop, ScheduledCall
from compilepool.supervisor.visits import QUESTIONS
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.joining import Joining
from compilepool.wire.messages import Kind, Message, ProtocolError, text_message

_FIRST_CLIENT_S = 30.0
"""The client that has started this supervisor comes within milliseconds, unless it has died."""


class Door:
    """Lets clients in. While it is open, no other supervisor of this identity can start.

    The supervisor has the lock of its identity until the door is shut.

    Args:
        loop: the event loop.
        clients: the clients of the supervisor.
        name: the pool's name in its directory.
        listener: the listening socket.
        lock: the descriptor of the locked file.
        directory: the descriptor of the directory that has both.
        first: the pidfd of the client that has started this supervisor.
        on_join: called with a connection, what the client says of itself, its pidfd, and its
            CONFIGURE.
        on_visit: called with a connection and what its visitor asks: one of `QUESTIONS`, or STOP.

    Attributes:
        is_open: whether clients may come.
        linger_s: the seconds that it stays open without clients.
    """

    def __init__(
        self,
        loop: Loop,
        clients: Clients,
        name: str,
        listener: int,
        lock: int,
        directory: int,
        first: int,
        on_join: Callable[[Channel, Joining, int, Message], None],
        on_visit: Callable[[Channel, Message], None],
    ) -> None:
        self._loop = loop
        self._clients = clients
        self._name = name
        self._on_join = on_join
        self._on_visit = on_visit
        self._entrance = Entrance(loop, name, listener, lock, directory, self._handle)
        self.is_open = True
        self.linger_s = 0.0
        self._end: ScheduledCall | None = None
        self._shut_in(_FIRST_CLIENT_S)
        self._first = first
        loop.watch(first, self.shut)  # it died before it has joined, and nobody else has

    @property
    def lingers(self) -> bool:
        """Whether the door stays open when the last client leaves."""
        return self.is_open and self.linger_s > 0

    def last_client_left(self) -> None:
        """Shut the door after `linger_s`, unless another client comes."""
        if self.linger_s:
            self._shut_in(self.linger_s)
        else:
            self.shut()

    def shut(self) -> None:
        """Let nobody in any more. The next client of this identity starts another supervisor."""
        if not self.is_open:
            return
        self.is_open = False
        self._forget_first()
        self._entrance.close()

    def _forget_first(self) -> None:
        if self._first >= 0:
            self._loop.forget(self._first)
            os.close(self._first)
            self._first = -1

    def _shut_in(self, seconds: float) -> None:
        self._end = self._loop.call_at(time.monotonic() + seconds, self.shut)

    def _handle(self, channel: Channel, messages: list[Message]) -> None:
        kinds = [message.kind for message in messages]
        if kinds == [Kind.JOIN, Kind.CONFIGURE]:
            self._join(channel, *messages)
        elif len(kinds) == 1 and kinds[0] in (*QUESTIONS, Kind.STOP) and not messages[0].fds:
            self._on_visit(channel, messages[0])
        else:
            close_messages(messages)
            channel.close()

    def _join(self, channel: Channel, join: Message, configure: Message) -> None:
        trouble = ""
        try:
            joining = Joining.of_message(join)
            if len(join.fds) != 1 or not _is_pidfd(join.fds[0]):
                trouble = "it has sent no pidfd"
            elif not joining.identity.startswith(self._name):
                trouble = "its identity is not the one that names the supervisor's socket"
            elif self._clients.identity not in ("", joining.identity):
                trouble = "its identity differs from that of the supervisor's other clients"
        except ProtocolError as error:
            trouble = str(error)
        if trouble:
            with contextlib.suppress(OSError):
                refusal = f"the supervisor does not take this client: {trouble}"
                channel.send(text_message(Kind.REFUSED, refusal), wait=False)
            close_messages([join, configure])
            channel.close()
            return
        self._clients.identity = joining.identity
        self.linger_s = max(self.linger_s, joining.linger_s)
        if self._end is not None:
            self._end.cancel()
        self._forget_first()
        self._on_join(channel, joining, join.fds[0], configure)


def _is_pidfd(fd: int) -> bool:
    """Whether a descriptor is a pidfd. Since Linux 6.9, its link has another form."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith(("anon_inode:[pidfd]", "pidfd:["))
