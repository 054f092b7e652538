"""Watches the jobs that run under a limit of time or memory, and tells when one is over it."""

from __future__ import annotations

import time
from collections.abc import Callable

from compilepool.linux import pidfds
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.job_memory import largest, memory_of_job, resident_growth
from compilepool.wire.failure import Cause
from compilepool.wire.submission import JobTerms

_NOT_BEGUN_S = 0.02
_FASTEST_GROWTH = 2 << 30
"""Bytes a second. About what one thread can take of fresh memory."""

_STILL = 1 << 20
"""Bytes. Who takes less from one look to the next does not grow."""

_PATIENCE = 2.5
"""So much less often is one looked at that has not grown at the last few looks."""

_QUIET_LOOKS = 4

_POLL_S = (0.02, 0.6)
"""Seconds from one look at a job's memory to the next: at least, and at most."""


def poll_after_s(limit: int, used: int, quiet_looks: int) -> float:
    """When to look next at the memory of a job, in seconds.

    It cannot be over its limit before; one that has not grown for a while is looked at less often.

    Args:
        limit: bytes that it may take.
        used: bytes that it takes.
        quiet_looks: how often in a row it was seen not to have grown.
    """
    shortest, longest = _POLL_S
    pace = _FASTEST_GROWTH if quiet_looks < _QUIET_LOOKS else _FASTEST_GROWTH / _PATIENCE
    return min(max((limit - used) / pace, shortest), longest)


class _Watched:
    """A job that runs.

    Attributes:
        link: its worker.
        job: its number.
        terms: its own.
        look_at: when it is looked at, by `time.monotonic()`.
        may_look_at: from when on it is, if others are.
        room: bytes that it could still take, when that was found out last.
        suspicious_at: bytes of growth from which on it must be found out how much it really takes.
        growth: bytes, when it was looked at last.
        quiet_looks: how often in a row it was seen not to have grown.
    """

    def __init__(
        self,
        link: WorkerLink,
        job: int,
        terms: JobTerms,
        look_at: float,
        may_look_at: float,
        room: int,
        suspicious_at: int,
    ) -> None:
        self.link = link
        self.job = job
        self.terms = terms
        self.look_at = look_at
        self.may_look_at = may_look_at
        self.room = room
        self.suspicious_at = suspicious_at
        self.growth = 0
        self.quiet_looks = 0


class LimitWatch:
    """The watch over the running jobs of one pool. While none has a limit, it never wakes up.

    Args:
        loop: the event loop.
        on_over: called with a worker, a job that it runs and why that must end, once for each job.
    """

    def __init__(self, loop: Loop, on_over: Callable[[WorkerLink, int, Verdict], None]) -> None:
        self._loop = loop
        self._on_over = on_over
        self._watched: dict[int, _Watched] = {}
        self._wakes_at = float("inf")

    def watch(self, link: WorkerLink, job: int, terms: JobTerms) -> None:
        """A job of some length runs, and has a limit."""
        now, limit = time.monotonic(), terms.memory_limit or 0
        self._watched[link.number] = _Watched(link, job, terms, now, now, limit, limit)
        self._wake_at(now)  # not here: who calls this is in the middle of something

    def forget(self, worker: int) -> None:
        """The worker's job has ended, or the worker is dead."""
        self._watched.pop(worker, None)

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._wakes_at:
            self._wakes_at = float("inf")
        for worker, watched in list(self._watched.items()):
            # Looks are taken together: to wake up costs more than to look.
            if watched.may_look_at <= now and (verdict := self._judge(watched, now)):
                del self._watched[worker]
                self._on_over(watched.link, watched.job, verdict)
        if self._watched:
            self._wake_at(min(each.look_at for each in self._watched.values()))

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self._loop.call_at(when, self._look)

    def _judge(self, watched: _Watched, now: float) -> Verdict | None:
        """Whether it is over a limit. If not, sees to when to look again."""
        terms, status = watched.terms, watched.link.status
        if status.job != watched.job or not watched.link.has_started:
            # Its time has not begun. Or the worker has said that it is ready before the fork server
            # has said that it exists.
            watched.look_at = watched.may_look_at = now + _NOT_BEGUN_S
            return None
        at = may = float("inf")
        if terms.timeout_s is not None:
            deadline = status.since + terms.timeout_s
            if now >= deadline:
                return Verdict(Cause.TIMEOUT, terms.timeout_s)
            at = may = deadline
        if terms.memory_limit is not None:
            limit = terms.memory_limit
            growth = resident_growth(watched.link.pid, status.before)
            if growth > watched.suspicious_at:
                processes = memory_of_job(watched.link.pid, status.before)
                total = sum(process.bytes for process in processes)
                watched.link.note_memory(total)
                # A pid of a dead worker may be another process's by now.
                if total > limit and not pidfds.wait_dead(watched.link.pidfd, 0):
                    return Verdict(Cause.MEMORY, limit, total, largest(processes))
                watched.room = limit - total
                watched.suspicious_at = growth + watched.room
            # What it takes from here on shows as growth. When what was counted several times goes,
            # the line goes down with it.
            watched.suspicious_at = max(limit, min(watched.suspicious_at, growth + watched.room))
            is_quiet = growth <= watched.growth + _STILL
            watched.quiet_looks = watched.quiet_looks + 1 if is_quiet else 0
            watched.growth = growth
            after_s = poll_after_s(watched.suspicious_at, growth, watched.quiet_looks)
            at, may = min(at, now + after_s), min(may, now + after_s / 2)
        watched.look_at, watched.may_look_at = at, may
        return None
