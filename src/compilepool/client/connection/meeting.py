"""Meets the supervisor of an identity on this node; starts it if there is none."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import contextlib
import errno
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence

from compilepool.client.connection.shared_supervisor import SharedSupervisor
from compilepool.client.connection.sharing import NAME_LENGTH, CannotMeet
from compilepool.linux import pidfds
from compilepool.linux.peers import peer_uid
from compilepool.linux.polling import READABLE, poll
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.channel import Channel, close_all, close_messages
from compilepool.wire.joining import Joining
from compilepool.wire.meeting_place import Claim, MeetingPlace, NoMeetingPlace
from compilepool.wire.messages import Kind, Message, ProtocolError, encode

PATIENCE_S = 30.0
"""A supervisor answers within this time; it takes 50 ms on an idle machine."""

_NO_SOCKET_PATIENCE_S = 2.0
"""Who has the lock makes the socket at once, and removes it just before the lock."""

_MAX_STARTS = 3
_LOOK_AGAIN_S = 0.005


_ANSWERS = {Kind.CONFIGURED: 1, Kind.REFUSED: 0}
"""The first answers of a supervisor, and how many descriptors come with each."""


def meet(
    joining: Joining,
    configure: Callable[[], Message],
    env: Mapping[str, str],
    python_flags: Sequence[str],
) -> SharedSupervisor:
    """Join the supervisor of an identity; start it if there is none.

    Args:
        joining: what this client says of itself.
        configure: makes the CONFIGURE message. Its descriptors are closed here.
        env: the environment of all processes of the pool.
        python_flags: the flags of `PoolConfig`, for the fork server.

    Raises:
        CannotMeet: that is impossible, or takes too long.
    """
    name = joining.identity[:NAME_LENGTH]
    deadline = time.monotonic() + PATIENCE_S
    seen = time.monotonic()
    starts = 0
    try:
        with MeetingPlace() as place:
            while True:
                if (sock := place.connect(name)) is not None:
                    supervisor = _join(sock, joining, configure, deadline)
                    if supervisor is not None:
                        return supervisor
                elif (claim := place.claim(name)) is not None:
                    if starts == _MAX_STARTS:
                        claim.give_up()
                        raise CannotMeet(f"supervisors were started {starts} times, and ended")
                    starts += 1
                    _start(place, claim, env, python_flags)
                    continue
                now = time.monotonic()
                if now > deadline:
                    raise CannotMeet(f"the supervisor of {place.path}/{name} does not answer")
                seen = now if place.has_socket(name) else seen
                if now - seen > _NO_SOCKET_PATIENCE_S:
                    raise CannotMeet(
                        f"somebody has deleted the socket {place.path}/{name}.sock of a supervisor"
                        " that lives; end the programs that use it"
                    )
                # It has just ended, or another process is starting it.
                select.select([], [], [], _LOOK_AGAIN_S)
    except NoMeetingPlace as error:
        raise CannotMeet(str(error)) from None
    except OSError as error:
        raise CannotMeet(f"no supervisor could be joined or started: {error}") from None


def _join(
    sock: socket.socket, joining: Joining, configure: Callable[[], Message], deadline: float
) -> SharedSupervisor | None:
    """Tell a supervisor of this client. Returns None if it ends before it has answered."""
    peer = peer_uid(sock)
    channel = Channel(sock)
    is_joined = False
    try:
        if peer != os.geteuid():
            raise CannotMeet(f"user {peer} listens at the socket of this user's supervisor")
        _introduce(channel, joining, configure)
        answer = _answer(channel, deadline)
        if answer is None:
            return None
        if answer.kind is Kind.REFUSED:
            raise CannotMeet(answer.body.decode(errors="replace"))
        supervisor = SharedSupervisor(channel, answer.id, answer.fds[0])
        is_joined = True
        return supervisor
    except ConnectionError:
        return None
    except (ProtocolError, TimeoutError) as error:
        raise CannotMeet(f"the supervisor does not answer as it should: {error}") from None
    finally:
        if not is_joined:
            channel.end()  # a forked child may have it, too
            channel.close()


def _answer(channel: Channel, deadline: float) -> Message | None:
    """Wait for a supervisor's first answer.

    Returns:
        Its REFUSED, or its CONFIGURED with its pidfd; None if it has ended.

    Raises:
        TimeoutError: it does not answer.
        ProtocolError: the answer is something else.
    """
    events = poll()
    events.register(channel.fileno(), READABLE)
    while not (messages := channel.receive(wait=False)):
        if messages is None:
            return None
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not events.poll(left_s * 1000):
            raise TimeoutError("it is silent")
    answer, *rest = messages
    if rest or answer.kind not in _ANSWERS or len(answer.fds) != _ANSWERS[answer.kind]:
        close_messages(messages)
        raise ProtocolError(f"{answer.kind.name} with {len(answer.fds)} descriptors")
    return answer


def _introduce(channel: Channel, joining: Joining, configure: Callable[[], Message]) -> None:
    """Send JOIN and CONFIGURE. The socket is new, so it has room."""
    pidfd = os.pidfd_open(os.getpid())
    fds: tuple[int, ...] = (pidfd,)
    try:
        messages = [joining.message(pidfd), configure()]
        fds += messages[1].fds
        channel.send_packet(b"".join(map(encode, messages)), fds, wait=False)
    finally:
        close_all(fds)


def _start(
    place: MeetingPlace, claim: Claim, env: Mapping[str, str], python_flags: Sequence[str]
) -> None:
    """Start a supervisor. What clients send to its socket waits until it reads."""
    try:
        place.tidy()
        own_pidfd = os.pidfd_open(os.getpid())
        try:
            fds = (*claim.listen(), own_pidfd)
            command = process_command(["-I", "-S"], "compilepool.supervisor.start_shared")
            starter = spawn([*command, claim.name, *python_flags], env, fds)
        finally:
            os.close(own_pidfd)
    except BaseException:
        claim.give_up()
        raise
    claim.hand_over()
    _wait_for(starter)


def _wait_for(starter: int) -> None:
    """Wait for the process that starts the supervisor; it ends within milliseconds."""
    try:
        pidfd = os.pidfd_open(starter)
    except OSError as error:
        if error.errno == errno.ESRCH:  # SIGCHLD is ignored, or another thread has reaped it
            return
        raise
    try:
        pidfds.wait_dead(pidfd, PATIENCE_S)
        with contextlib.suppress(OSError):
            pidfds.reap(pidfd)
    finally:
        os.close(pidfd)
