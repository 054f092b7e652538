"""Visits the pools of this user on this node: looks at them, and asks for things. Joins none."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping

from compilepool.light_typing import Literal, NamedTuple
from compilepool.linux import pidfds
from compilepool.linux.peers import peer_uid
from compilepool.linux.polling import READABLE, poll
from compilepool.linux.proc import pid_behind
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.meeting_place import MeetingPlace, NoMeetingPlace
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import lacks_descriptor, of_message
from compilepool.wire.visiting import PoolLook

_ANSWER_S = 2.0
"""A supervisor that does not answer within this time is stopped, or hangs."""

_DUMP_S = 10.0
"""A supervisor has looked into a worker within this time."""

_END_S = 10.0
"""Within this time, a supervisor that was told to stop has ended, and so has all below it."""


class Visit(NamedTuple):
    """What a visit to one pool has found.

    Attributes:
        name: the pool's name; that of a shared one is the first digits of its identity.
        view: the pool; None if that could not be learnt.
        has_own_pids: whether the PIDs in `view` are those by which this process knows the pool's
            processes: not if they are in another container.
        trouble: what went wrong; empty if nothing did.
    """

    name: str
    view: PoolLook | None = None
    has_own_pids: bool = False
    trouble: str = ""


def look(place: MeetingPlace) -> list[Visit]:
    """Look at all shared pools of a place. Takes little more than 2 s, even if none answers.

    A file that a dead supervisor has left is no pool.
    """
    return look_at(place, place.names())


def look_at(
    place: MeetingPlace, names: Iterable[str], seen: Mapping[str, int] | None = None
) -> list[Visit]:
    """Look at pools; see `look`.

    Args:
        place: where they are.
        names: their names there.
        seen: for some names, the number of the last failure that the visitor knows.
    """
    return _visit(place, names, Kind.LOOK, lambda visitor: visitor.found(), seen or {})


def ask(
    place: MeetingPlace, name: str, kind: Literal[Kind.CANCEL, Kind.QUIESCE], run: int = 0
) -> Visit:
    """Cancel all jobs that wait for a run, or let a pool sleep.

    Returns:
        What the pool is like then.
    """
    gone = Visit(name, trouble="it has ended")
    visits = _visit(place, [name], kind, lambda visitor: visitor.found(), {name: run})
    return next(iter(visits), gone)


def dump(place: MeetingPlace, name: str, run: int) -> JobSnapshot | str:
    """Find out what a run of a pool is doing.

    Returns:
        What it does, or why that could not be learnt.
    """
    with _Visitor(place, name) as visitor:
        visitor.ask(Kind.DUMP, run)
        return visitor.dumped()


def stop(place: MeetingPlace, names: Iterable[str]) -> list[Visit]:
    """Stop pools, with all that they have, and wait until they have ended; within a bound.

    Args:
        place: where they are.
        names: their names there.

    Returns:
        What each was like when it was told to stop. One that had ended by then is left out.
    """
    return _visit(place, names, Kind.STOP, lambda visitor: visitor.ended(), {})


def _visit(
    place: MeetingPlace,
    names: Iterable[str],
    kind: Kind,
    learn: Callable[[_Visitor], Visit | None],
    ids: Mapping[str, int],
) -> list[Visit]:
    with contextlib.ExitStack() as stack:
        # All are asked before the first answer is awaited, so the silent ones take no time each.
        visitors = [stack.enter_context(_Visitor(place, name)) for name in names]
        for visitor in visitors:
            visitor.ask(kind, ids.get(visitor.name, 0))
        return [visit for visitor in visitors if (visit := learn(visitor)) is not None]


class _Visitor:
    """Visits one supervisor, as a context manager."""

    def __init__(self, place: MeetingPlace, name: str) -> None:
        self._place = place
        self.name = name
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

    def ask(self, kind: Kind, id: int) -> None:
        """Send the question, if somebody listens."""
        self._asked = time.monotonic()
        try:
            sock = self._place.connect(self.name)
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
            channel.send(Message(kind, id), wait=False)

    def found(self) -> Visit | None:
        """Wait for the answer. Returns None if there is no supervisor."""
        if self._trouble or self._channel is None:
            return Visit(self.name, trouble=self._trouble) if self._trouble else None
        try:
            view = self._answer(self._channel)
            if view is None:
                return None
            has_own_pids = pid_behind(self._pidfd) in (view.pid, -1)
        except TimeoutError:
            return Visit(self.name, trouble="it does not answer")
        except (ProtocolError, OSError, ValueError) as error:
            return Visit(self.name, trouble=f"it does not answer as it should: {error}")
        return Visit(self.name, view, has_own_pids)

    def ended(self) -> Visit | None:
        """Wait for the answer, and for the supervisor's end. Returns None if there was none."""
        visit = self.found()
        if visit is None or visit.view is None:
            return visit
        if pidfds.wait_dead(self._pidfd, _END_S):
            return visit
        return visit._replace(trouble=f"it has not ended within {_END_S:g} s")

    def dumped(self) -> JobSnapshot | str:
        """Wait for the answer to DUMP. Returns it, or why there is none."""
        if self._channel is None:
            return self._trouble or "the pool has ended"
        try:
            answer = self._next(self._channel, Kind.DUMPED, _DUMP_S)
            if answer is None:
                return "the pool has ended"
            return JobSnapshot.of_payload(of_message(answer))
        except TimeoutError:
            return "the pool does not answer"
        except (ProtocolError, OSError) as error:
            return f"the pool does not answer as it should: {error}"

    def _answer(self, channel: Channel) -> PoolLook | None:
        answer = self._next(channel, Kind.LOOKED, _ANSWER_S)
        if answer is None:
            return None
        if not answer.fds:
            raise ProtocolError("no descriptor")
        self._pidfd = answer.fds[-1]
        return PoolLook.of_payload(of_message(answer._replace(fds=answer.fds[:-1])))

    def _next(self, channel: Channel, kind: Kind, patience_s: float) -> Message | None:
        """Wait for an answer of a kind. Returns None if the supervisor has ended.

        Raises:
            TimeoutError: there is none.
            ProtocolError: it is another one.
        """
        events = poll()
        events.register(channel.fileno(), READABLE)
        while not (messages := channel.receive(wait=False)):
            if messages is None:
                return None
            left_s = self._asked + patience_s - time.monotonic()
            if left_s <= 0 or not events.poll(left_s * 1000):
                raise TimeoutError
        answer, *rest = messages
        if rest or answer.kind is not kind or lacks_descriptor(answer):
            close_messages(messages)
            raise ProtocolError(f"{answer.kind.name} with {len(answer.fds)} descriptors")
        return answer
