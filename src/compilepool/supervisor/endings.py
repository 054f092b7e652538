"""Ends workers for the sake of the job that they run: over a limit, or cancelled.

A job that is over a limit is looked into first. Then the worker is stopped, so that the job goes on
with nothing; the processes below it get SIGTERM and a moment: a compiler removes its temporary
files. Then the worker is killed, and when it is dead, the fork server kills what it leaves.
"""

from __future__ import annotations

import functools
import os
import signal
import time

from compilepool.supervisor.crash_watch import CrashWatch
from compilepool.supervisor.loop import Loop
from compilepool.supervisor.worker_link import WorkerLink
from compilepool.wire import kernel
from compilepool.wire.failure import Cause
from compilepool.wire.process_tree import signal_descendants
from compilepool.wire.signals import DUMP_SIGNAL
from compilepool.wire.snapshot import JobSnapshot

GRACE_S = 0.15
"""How long the processes that a job has started may take to end by themselves."""

_SHORTEST_LOOK_S = 0.25
_LONGEST_LOOK_S = 2.0
_PYTHON_STACK_S = 0.02


def look_s(timeout_s: float) -> float:
    """For how long, in seconds, a job may be looked into that is over its timeout."""
    return min(max(timeout_s / 2, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)


class Endings:
    """The workers of one pool that are being ended.

    Args:
        loop: the event loop.
        crash_watch: looks into workers.
    """

    def __init__(self, loop: Loop, crash_watch: CrashWatch) -> None:
        self._loop = loop
        self._crash_watch = crash_watch
        self._told_to_end: dict[int, set[int]] = {}
        """For each stopped worker, the pidfds of the processes below it that live."""

    def end(self, link: WorkerLink) -> None:
        """Kill the worker before long; its end is heard of as any."""
        if not link.has_started or link.crash is not None:
            link.kill()
            return
        if link.verdict is None:
            self._stop(link)
        elif link.verdict.cause is Cause.TIMEOUT:
            self._crash_watch.take_snapshot(
                link, functools.partial(self._looked_into, link), look_s(link.verdict.limit)
            )
        else:
            self._ask_for_python_stack(link)

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead."""
        for pidfd in self._told_to_end.pop(link.number, ()):
            self._close(pidfd)

    def _looked_into(self, link: WorkerLink, snapshot: JobSnapshot) -> None:
        if link.verdict is not None and snapshot.state == "running":
            link.verdict.snapshot = snapshot
        self._stop(link)

    def _ask_for_python_stack(self, link: WorkerLink) -> None:
        """It is fast to come; what is slower would see the job take yet more memory."""
        signal_descendants(link.pid, signal.SIGSTOP, keep=False)
        self._crash_watch.read(link)
        link.crash_socket.forget_dump()
        if kernel.catches(link.pid, DUMP_SIGNAL):
            kernel.send_signal(link.pidfd, DUMP_SIGNAL)

        def answered() -> None:
            if not link.is_closed:
                self._crash_watch.read(link)
                self._looked_into(link, link.snapshot(""))

        self._loop.call_at(time.monotonic() + _PYTHON_STACK_S, answered)

    def _stop(self, link: WorkerLink) -> None:
        if link.is_closed:
            return
        kernel.send_signal(link.pidfd, signal.SIGSTOP)
        pidfds = signal_descendants(link.pid, signal.SIGTERM)
        for pidfd in pidfds:
            kernel.send_signal(pidfd, signal.SIGCONT)  # one that is stopped would not hear of it
        if not pidfds:
            link.kill()
            return
        self._told_to_end[link.number] = set(pidfds)
        for pidfd in pidfds:
            self._loop.watch(pidfd, functools.partial(self._one_has_ended, link, pidfd))
        self._loop.call_at(time.monotonic() + GRACE_S, functools.partial(self._time_is_up, link))

    def _one_has_ended(self, link: WorkerLink, pidfd: int) -> None:
        left = self._told_to_end.get(link.number, set())
        if pidfd in left:
            left.remove(pidfd)
            self._close(pidfd)
            if not left:
                self._time_is_up(link)

    def _time_is_up(self, link: WorkerLink) -> None:
        self.forget(link)
        if not link.is_closed:
            link.kill()

    def _close(self, pidfd: int) -> None:
        self._loop.forget(pidfd)
        os.close(pidfd)
