"""Starts the supervisor process, sends to it, and waits for its end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence

from compilepool.light_typing import Protocol
from compilepool.linux import pidfds
from compilepool.linux.descriptors import close_if_ours, is_open_on, opened_by
from compilepool.linux.polling import READABLE, WRITABLE, poll
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.channel import Channel
from compilepool.wire.messages import MAX_PACKET, Kind, Message, Shutdown, encode

MAX_HELD = 32
"""How many messages wait to be sent together, at most."""

SMALL = MAX_PACKET // (2 * MAX_HELD)
"""How many bytes the body of a message may have that waits."""

_IN_FLIGHT_S = 5.0


class Lock(Protocol):
    """What `end_within_bound` calls of a lock."""

    def acquire(self, *, timeout: float) -> bool:
        """Take it, if that is possible within `timeout` seconds. Returns whether it is taken."""

    def release(self) -> None:
        """Give it back."""


class SupervisorProcess:
    """One supervisor, a child of this process, started by exec.

    Args:
        env: the environment of all processes of the pool.
        python_flags: the flags of `PoolConfig`, for the fork server that it starts at once.

    Attributes:
        channel: the socket to it.
        pid: its PID.
        pidfd: its pidfd; -1 after `close`.
        exitcode: its exit code after `bury`, negated signal number if a signal killed it.
        is_buried: set when `bury` has set `exitcode`.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, env: Mapping[str, str], python_flags: Sequence[str] = ()) -> None:
        self.channel, theirs = Channel.pair()
        lease = os.pidfd_open(os.getpid())
        try:
            # Isolated, and without the site module: nothing of the user's can slow it or break it.
            command = process_command(["-I", "-S"], "compilepool.supervisor.start")
            self.pid = spawn([*command, *python_flags], env, [theirs.fileno(), lease])
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
            os.close(lease)
        self.pidfd = os.pidfd_open(self.pid)
        self._opened = opened_by(self.pidfd)
        self.exitcode: int | None = None
        self.is_buried = threading.Event()
        self._held: list[bytes] = []

    def hold(self, message: Message) -> bool:
        """Send a message together with others, later; returns and raises as `send` does.

        The caller makes sure that somebody calls `flush`.

        Args:
            message: a message without descriptors, whose body has `SMALL` bytes at most.
        """
        self._held.append(encode(message))
        return len(self._held) < MAX_HELD or self.flush()

    @property
    def has_held(self) -> bool:
        """Whether there is anything to `flush`. Any thread."""
        return bool(self._held)

    def flush(self) -> bool:
        """Send all that is held; returns and raises as `send` does.

        While this waits, a signal handler may raise, or send something itself. Even then, nothing
        is lost, and the order is kept. At worst a message is sent twice: the supervisor ignores the
        second one.
        """
        try:
            while held := self._held[:]:
                self.channel.check_is_open()
                if self.channel.send_packet(b"".join(held), (), wait=False):
                    if self._held[: len(held)] == held:  # else a signal handler has sent them, too
                        del self._held[: len(held)]
                elif not self._wait_for_room():
                    return False
        except ConnectionError:
            return False
        return True

    def send(self, message: Message) -> bool:
        """Send a message, waiting for room as long as the supervisor lives.

        Returns:
            False if it is dead.

        Raises:
            OSError: the program has too many descriptors in flight (unix(7), ETOOMANYREFS), or has
                closed ours.
        """
        return self.flush() and self._send_packet(encode(message), message.fds)

    def _send_packet(self, packet: bytes, fds: tuple[int, ...]) -> bool:
        deadline = 0.0
        self.channel.check_is_open()
        try:
            while not self.channel.send_packet(packet, fds, wait=False):
                if not self._wait_for_room():
                    return False
                # There is room, so too many descriptors are in flight, and no event tells when
                # there are fewer.
                deadline = deadline or time.monotonic() + _IN_FLIGHT_S
                if time.monotonic() > deadline:
                    raise OSError(errno.ETOOMANYREFS, "too many descriptors in flight")
                pidfds.wait_dead(self.pidfd, 0.001)
        except ConnectionError:
            return False
        return True

    def _wait_for_room(self) -> bool:
        """Wait until the socket takes something. False if the supervisor is dead."""
        events = poll()
        events.register(self.channel.fileno(), WRITABLE)
        # Its death is no event on the socket if some other process has a copy of its end.
        events.register(self.pidfd, READABLE)
        return all(fd != self.pidfd for fd, _ in events.poll())

    def request_end(self) -> None:
        """Have it end at once, with all jobs. Never waits; needs no lock, as packets are atomic."""
        with contextlib.suppress(OSError):
            self.channel.check_is_open()
            self.channel.send(Message(Kind.SHUTDOWN, flag=Shutdown.NOW), wait=False)

    def kill(self) -> None:
        """Kill it, unless it was closed. All that it has started ends with it."""
        if self.pidfd < 0:
            return
        if not self._has_pidfd or not pidfds.send_signal(self.pidfd, signal.SIGKILL):
            pidfds.kill_child(self.pid)

    def bury(self, patience_s: float) -> int | None:
        """Wait for its end, kill it if that takes longer than `patience_s` seconds, and reap it.

        Returns:
            Its exit code, negated signal number if a signal killed it, None if unknown.
        """
        self._reopen_pidfd()
        if not pidfds.wait_dead(self.pidfd, patience_s):
            self.kill()
            pidfds.wait_dead(self.pidfd, patience_s)
        self.exitcode = pidfds.reap(self.pidfd)
        self.is_buried.set()
        return self.exitcode

    def discard(self, patience_s: float) -> None:
        """Kill it, wait for its end, which takes at most twice `patience_s`, and close it."""
        try:
            self.kill()
            self.bury(patience_s)
        finally:
            self.close()

    @property
    def _has_pidfd(self) -> bool:
        return is_open_on(self.pidfd, self._opened)

    def _reopen_pidfd(self) -> None:
        """Where the program has closed the pidfd, open another one, if that is possible."""
        if not self._has_pidfd and pidfds.is_child(self.pid):
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(self.pid)
                self._opened = opened_by(self.pidfd)

    def close(self) -> None:
        """Close the descriptors, unless the program has closed them."""
        self.channel.close()
        pidfd, self.pidfd = self.pidfd, -1
        close_if_ours(pidfd, self._opened)


def end_within_bound(
    supervisor: SupervisorProcess, reader: threading.Thread, lock: Lock, patience_s: float
) -> None:
    """Wait for the end of a supervisor that was asked to end; kill it if it does not end.

    Args:
        supervisor: the supervisor.
        reader: the thread that reads from it, and ends after it.
        lock: whoever closes the supervisor holds it.
        patience_s: how long to wait at a time, in seconds; three times at most.
    """
    reader.join(patience_s)
    if not reader.is_alive():
        return
    # The reader may close it meanwhile, so the lock is needed. But whoever has the lock for long is
    # sending to this very supervisor, which does not read: then it is killed without the lock.
    has_lock = lock.acquire(timeout=patience_s)
    supervisor.kill()
    if has_lock:
        lock.release()
    reader.join(patience_s)  # not for ever: a callback of the user's may hold it up
