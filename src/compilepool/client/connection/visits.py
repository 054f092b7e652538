"""Looks at the shared pools of this user on this node, and stops them. The visitor joins none."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

from compilepool.client.connection.meeting_place import MeetingPlace, NoMeetingPlace
from compilepool.light_typing import NamedTuple
from compilepool.linux import pidfds
from compilepool.linux.peers import peer_uid
from compilepool.linux.polling import READABLE, poll
from compilepool.linux.proc import pid_behind
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.joining import SharedPoolView
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import lacks_descriptor, of_message

_ANSWER_S = 2.0
"""A supervisor that does not answer within this time is stopped, or hangs."""

_END_S = 10.0
"""Within this time, a supervisor that was told to stop has ended, and so has all below it."""


class Visit(NamedTuple):
    """What a visit to one shared pool has found.

    Attributes:
        name: the pool's name, the first digits of its identity.
        view: the pool; None if that could not be learnt.
        has_own_pids: whether the PIDs in `view` are those by which this process knows the pool's
            processes: not if they are in another container.
        trouble: what went wrong; empty if nothing did.
    """

    name: str
    view: SharedPoolView | None = None
    has_own_pids: bool = False
    trouble: str = ""


def look(place: MeetingPlace) -> list[Visit]:
    """Look at all pools of a place. Takes little more than 2 s, even if none answers.

    A file that a dead supervisor has left is no pool.
    """
    return _visit(place, place.names(), Kind.LOOK, lambda visitor: visitor.found())


def stop(place: MeetingPlace, names: Iterable[str]) -> list[Visit]:
    """Stop pools, with all that they have, and wait until they have ended; within a bound.

    Args:
        place: where they are.
        names: their names there.

    Returns:
        What each was like when it was told to stop. One that had ended by then is left out.
    """
    return _visit(place, names, Kind.STOP, lambda visitor: visitor.ended())


def _visit(
    place: MeetingPlace,
    names: Iterable[str],
    kind: Kind,
    learn: Callable[[_Visitor], Visit | None],
) -> list[Visit]:
    with contextlib.ExitStack() as stack:
        # All are asked before the first answer is awaited, so the silent ones take no time each.
        visitors = [stack.enter_context(_Visitor(place, name)) for name in names]
        for visitor in visitors:
            visitor.ask(kind)
        return [visit for visitor in visitors if (visit := learn(visitor)) is not None]


class _Visitor:
    """Visits one supervisor, as a context manager."""

    def __init__(self, place: MeetingPlace, name: str) -> None:
        self._place = place
        self._name = name
        self._channel: Channel | None = None
        self._pidfd = -1
        self._asked = 0.0
        self._trouble = ""

    def __enter__(self) -> _Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def ask(self, kind: Kind) -> None:
        """Send the question, if somebody listens."""
        self._asked = time.monotonic()
        try:
            sock = self._place.connect(self._name)
        except NoMeetingPlace as error:
            self._trouble = str(error)
            return
        if sock is None:
            return
        peer = peer_uid(sock)
        channel = Channel(sock)
        if peer != os.geteuid():
            channel.close()
            self._trouble = f"user {peer} listens at its socket"
            return
        self._channel = channel
        with contextlib.suppress(ConnectionError):  # it has just ended
            channel.send(Message(kind), wait=False)

    def found(self) -> Visit | None:
        """Wait for the answer. Returns None if there is no supervisor."""
        if self._trouble or self._channel is None:
            return Visit(self._name, trouble=self._trouble) if self._trouble else None
        try:
            view = self._answer(self._channel)
            if view is None:
                return None
            has_own_pids = pid_behind(self._pidfd) in (view.pid, -1)
        except TimeoutError:
            return Visit(self._name, trouble="it does not answer")
        except (ProtocolError, OSError, ValueError) as error:
            return Visit(self._name, trouble=f"it does not answer as it should: {error}")
        return Visit(self._name, view, has_own_pids)

    def ended(self) -> Visit | None:
        """Wait for the answer, and for the supervisor's end. Returns None if there was none."""
        visit = self.found()
        if visit is None or visit.view is None:
            return visit
        if pidfds.wait_dead(self._pidfd, _END_S):
            return visit
        return visit._replace(trouble=f"it has not ended within {_END_S:g} s")

    def _answer(self, channel: Channel) -> SharedPoolView | None:
        events = poll()
        events.register(channel.fileno(), READABLE)
        while not (messages := channel.receive(wait=False)):
            if messages is None:
                return None
            left_s = self._asked + _ANSWER_S - time.monotonic()
            if left_s <= 0 or not events.poll(left_s * 1000):
                raise TimeoutError
        answer, *rest = messages
        if rest or answer.kind is not Kind.LOOKED or not answer.fds or lacks_descriptor(answer):
            close_messages(messages)
            raise ProtocolError(f"{answer.kind.name} with {len(answer.fds)} descriptors")
        self._pidfd = answer.fds[-1]
        return SharedPoolView.of_payload(of_message(answer._replace(fds=answer.fds[:-1])))
