"""Starts the supervisor process of one pool, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping, Sequence

from compilepool.client.connection.connection import SupervisorConnection
from compilepool.light_typing import Protocol
from compilepool.linux import pidfds
from compilepool.linux.descriptors import away_from_output, is_open_on, opened_by
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.channel import Channel


class Lock(Protocol):
    """What `end_within_bound` calls of a lock."""

    def acquire(self, *, timeout: float) -> bool:
        """Take it, if that is possible within `timeout` seconds. Returns whether it is taken."""

    def release(self) -> None:
        """Give it back."""


class SupervisorProcess(SupervisorConnection):
    """One supervisor, a child of this process, started by exec. It ends with this process.

    Args:
        env: the environment of all processes of the pool.
        python_flags: the flags of `PoolConfig`, for the fork server that it starts at once.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, env: Mapping[str, str], python_flags: Sequence[str] = ()) -> None:
        channel, theirs = Channel.pair()
        lease = os.pidfd_open(os.getpid())
        try:
            # Isolated, and without the site module: nothing of the user's can slow it or break it.
            command = process_command(["-I", "-S"], "compilepool.supervisor.start")
            pid = spawn([*command, *python_flags], env, [theirs.fileno(), lease])
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
            os.close(lease)
        super().__init__(channel, pid, away_from_output(os.pidfd_open(pid)))

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

    @property
    def _has_pidfd(self) -> bool:
        return is_open_on(self.pidfd, self._opened)

    def _reopen_pidfd(self) -> None:
        """Where the program has closed the pidfd, open another one, if that is possible."""
        if not self._has_pidfd and pidfds.is_child(self.pid):
            with contextlib.suppress(OSError):
                self.pidfd = os.pidfd_open(self.pid)
                self._opened = opened_by(self.pidfd)


def end_within_bound(
    supervisor: SupervisorConnection, reader: threading.Thread, lock: Lock, patience_s: float
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
