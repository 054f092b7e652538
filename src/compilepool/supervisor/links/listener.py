"""The socket of a shared supervisor, to which clients connect, and those that have just done so."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import functools
import os
import time
from collections.abc import Callable

from compilepool.linux.peers import peer_uid
from compilepool.supervisor.links.loop import Loop, ScheduledCall
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Message, ProtocolError

_FIRST_WORD_S = 30.0
"""Within this time, a client says what it wants. It does so at once, but may be stopped."""

_MAX_GUESTS = 1024
_LOOK_AGAIN_S = 0.05  # after which there may be a descriptor for one more client


class Listener:
    """Accepts connections, and reads the first packet of each.

    Args:
        loop: the event loop.
        fd: the listening socket, which is taken over.
        on_packet: called with a connection and the messages of its first packet; takes over both.
    """

    def __init__(
        self, loop: Loop, fd: int, on_packet: Callable[[Channel, list[Message]], None]
    ) -> None:
        self._loop = loop
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
        self._socket.setblocking(False)
        self._on_packet = on_packet
        self._guests: dict[Channel, ScheduledCall] = {}
        self._loop.watch(fd, self._accept)

    def close(self) -> None:
        """Close the socket, and the connections that have not said anything yet."""
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        for channel in list(self._guests):
            self._dismiss(channel)

    def _accept(self) -> None:
        while True:
            try:
                fd, _ = self._socket._accept()  # type: ignore[attr-defined] # typeshed
            except BlockingIOError:
                return
            except ConnectionError:  # that client is gone already
                continue
            except OSError:  # no descriptor, or no memory: the others wait
                self._pause()
                return
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd)
            if len(self._guests) >= _MAX_GUESTS or peer_uid(sock) != os.geteuid():
                sock.close()
                continue
            channel = Channel(sock)
            late = functools.partial(self._dismiss, channel)
            self._guests[channel] = self._loop.call_at(time.monotonic() + _FIRST_WORD_S, late)
            self._loop.watch(channel.fileno(), functools.partial(self._read, channel))

    def _pause(self) -> None:
        fd = self._socket.fileno()
        self._loop.forget(fd)

        def go_on() -> None:
            if self._socket.fileno() == fd:
                self._loop.watch(fd, self._accept)

        self._loop.call_at(time.monotonic() + _LOOK_AGAIN_S, go_on)

    def _read(self, channel: Channel) -> None:
        try:
            messages = channel.receive(wait=False)
        except (ProtocolError, OSError):
            self._dismiss(channel)
            return
        if messages == []:
            return
        if messages is None:
            self._dismiss(channel)
            return
        self._guests.pop(channel).cancel()
        self._loop.forget(channel.fileno())
        self._on_packet(channel, messages)

    def _dismiss(self, channel: Channel) -> None:
        self._guests.pop(channel).cancel()
        self._loop.forget(channel.fileno())
        channel.close()
