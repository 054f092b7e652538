"""Watches the running jobs that have a limit of time or memory, and tells when one is over it."""

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
"""Bytes per second: about as much fresh memory as one thread can touch."""

_STILL = 1 << 20
"""Bytes. A job whose growth from one look to the next is less does not count as growing."""

_PATIENCE = 2.5
"""By this factor a job is looked at less often if it has not grown for `_QUIET_LOOKS` looks."""

_QUIET_LOOKS = 4

_POLL_S = (0.02, 0.6)
"""The shortest and the longest time between two looks at the memory of a job, in seconds."""


def poll_after_s(limit: int, used: int, quiet_looks: int) -> float:
    """The time until the next look at the memory of a job, in seconds.

    Even the fastest job cannot be over its limit earlier. A job that has not grown for a while is
    looked at less often.

    Args:
        limit: the bytes that the job may take.
        used: the bytes that it takes.
        quiet_looks: how many looks in a row have seen no growth.
    """
    shortest, longest = _POLL_S
    pace = _FASTEST_GROWTH if quiet_looks < _QUIET_LOOKS else _FASTEST_GROWTH / _PATIENCE
    return min(max((limit - used) / pace, shortest), longest)


class _Watched:
    """A running job that has a limit.

    Attributes:
        link: its worker.
        job: its number.
        terms: its terms, which have the limits.
        look_at: when to look at it next, by `time.monotonic()`.
        may_look_at: from when on it may be looked at together with others.
        room: the bytes that it could still take when its memory was last measured exactly.
        suspicious_at: the growth in bytes from which on its memory must be measured exactly.
        growth: its growth in bytes at the last look; see `resident_growth`.
        quiet_looks: how many looks in a row have seen no growth.
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
    """The running jobs of one pool that have a limit. While there are none, nothing wakes up.

    Args:
        loop: the event loop.
        on_over: called with a worker, its job and why the job must end, once for each job.
    """

    def __init__(self, loop: Loop, on_over: Callable[[WorkerLink, int, Verdict], None]) -> None:
        self._loop = loop
        self._on_over = on_over
        self._watched: dict[int, _Watched] = {}
        self._wakes_at = float("inf")

    def watch(self, link: WorkerLink, job: int, terms: JobTerms) -> None:
        """Watch a job that runs for some time already, and has a limit."""
        now, limit = time.monotonic(), terms.memory_limit or 0
        self._watched[link.number] = _Watched(link, job, terms, now, now, limit, limit)
        self._wake_at(now)  # not at once: the caller is not done yet

    def forget(self, worker: int) -> None:
        """The worker's job has ended, or the worker is dead."""
        self._watched.pop(worker, None)

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._wakes_at:
            self._wakes_at = float("inf")
        for worker, watched in list(self._watched.items()):
            # Jobs are looked at together, because waking up costs more than looking.
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
        """Why the job must end; None if it need not. Then the next look is planned."""
        terms, status = watched.terms, watched.link.status
        if status.job != watched.job or not watched.link.has_started:
            # The job has not begun. Or the worker has said that it is ready before the fork server
            # has said that the worker exists.
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
                # If the worker is dead, its pid may belong to another process by now.
                if total > limit and not pidfds.wait_dead(watched.link.pidfd, 0):
                    return Verdict(Cause.MEMORY, limit, total, largest(processes))
                watched.room = limit - total
                watched.suspicious_at = growth + watched.room
            # What the job takes from now on shows as growth. When memory goes that was counted
            # several times, the threshold goes down with it.
            watched.suspicious_at = max(limit, min(watched.suspicious_at, growth + watched.room))
            is_quiet = growth <= watched.growth + _STILL
            watched.quiet_looks = watched.quiet_looks + 1 if is_quiet else 0
            watched.growth = growth
            after_s = poll_after_s(watched.suspicious_at, growth, watched.quiet_looks)
            at, may = min(at, now + after_s), min(may, now + after_s / 2)
        watched.look_at, watched.may_look_at = at, may
        return None
