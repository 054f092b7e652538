"""Watches runs that have a limit of time or memory, and tells when one exceeds its limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from compilepool.linux import pidfds
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.run_memory import largest, memory_of_run, resident_growth
from compilepool.wire.failure import Cause
from compilepool.wire.submission import JobTerms

_NOT_BEGUN_S = 0.02  # the time between two checks of a run that has not begun
_FASTEST_GROWTH = 2 << 30
"""Bytes per second: about as much fresh memory as one thread can touch."""

_STILL = 1 << 20
"""Bytes. A run that grows by less from one check to the next does not count as growing."""

_PATIENCE = 2.5
"""The checks are rarer by this factor once a run has not grown for `_QUIET_CHECKS` checks."""

_QUIET_CHECKS = 4

_POLL_S = (0.02, 0.6)
"""The shortest and the longest time between two checks of the memory of a run, in seconds."""


def poll_after_s(limit: int, used: int, quiet_checks: int) -> float:
    """The time until the next check of the memory of a run, in seconds.

    The fastest run could reach its limit at that time. A run that has not grown for a while is
    checked less often. The result is within `_POLL_S`.

    Args:
        limit: the bytes that the run may take.
        used: the bytes that the run takes now.
        quiet_checks: the number of checks in a row that have seen no growth.
    """
    shortest, longest = _POLL_S
    pace = _FASTEST_GROWTH if quiet_checks < _QUIET_CHECKS else _FASTEST_GROWTH / _PATIENCE
    return min(max((limit - used) / pace, shortest), longest)


class _Watched:
    """A run that has a limit and a worker.

    Attributes:
        link: the worker.
        run: the run's id.
        terms: the run's terms, with the limits.
        check_at: the time of the next check, by `time.monotonic()`.
        may_check_at: the time from which on the run may be checked together with others.
        room: the bytes that were left of the limit when memory was last measured exactly.
        suspicious_at: the growth in bytes above which memory must be measured exactly.
        growth: the growth in bytes at the last check, see `resident_growth`.
        quiet_checks: the number of checks in a row that have seen no growth.
    """

    def __init__(
        self,
        link: WorkerLink,
        run: int,
        terms: JobTerms,
        check_at: float,
        may_check_at: float,
        room: int,
        suspicious_at: int,
    ) -> None:
        self.link = link
        self.run = run
        self.terms = terms
        self.check_at = check_at
        self.may_check_at = may_check_at
        self.room = room
        self.suspicious_at = suspicious_at
        self.growth = 0
        self.quiet_checks = 0


class LimitWatch:
    """Watches the runs of one pool that have a limit. While there are none, no timer is set.

    Args:
        loop: the event loop.
        on_over: called once for each run that exceeds a limit, with the worker, the run's id and
            the reason why the run must end.
    """

    def __init__(self, loop: Loop, on_over: Callable[[WorkerLink, int, Verdict], None]) -> None:
        self._loop = loop
        self._on_over = on_over
        self._watched: dict[int, _Watched] = {}
        self._wakes_at = float("inf")

    def watch(self, link: WorkerLink, run: int, terms: JobTerms) -> None:
        """Watch a run that has a limit, from now on."""
        now, limit = time.monotonic(), terms.memory_limit or 0
        self._watched[link.number] = _Watched(link, run, terms, now, now, limit, limit)
        self._wake_at(now)  # from the loop, because the caller is not ready for `on_over` yet

    def forget(self, worker: int) -> None:
        """Stop watching a worker: its run has ended, or the worker is dead."""
        self._watched.pop(worker, None)

    def _check_all(self) -> None:
        now = time.monotonic()
        if now >= self._wakes_at:
            self._wakes_at = float("inf")
        for worker, watched in list(self._watched.items()):
            # Runs are checked together, because waking up costs more than a check.
            if watched.may_check_at <= now and (verdict := self._judge(watched, now)):
                del self._watched[worker]
                self._on_over(watched.link, watched.run, verdict)
        if self._watched:
            self._wake_at(min(each.check_at for each in self._watched.values()))

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self._loop.call_at(when, self._check_all)

    def _judge(self, watched: _Watched, now: float) -> Verdict | None:
        """Why the run must end. If it need not, plan the next check and return None."""
        terms, status = watched.terms, watched.link.status
        if status.job != watched.run or not watched.link.has_started:
            # The run has not begun. Or the worker has said that it is ready before the fork server
            # has said that the worker exists.
            watched.check_at = watched.may_check_at = now + _NOT_BEGUN_S
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
                processes = memory_of_run(watched.link.pid, status.before)
                total = sum(process.bytes for process in processes)
                watched.link.note_memory(total)
                # If the worker is dead, its PID may belong to another process by now.
                if total > limit and not pidfds.wait_dead(watched.link.pidfd, 0):
                    return Verdict(Cause.MEMORY, limit, total, largest(processes))
                watched.room = limit - total
                watched.suspicious_at = growth + watched.room
            # All that the run takes from now on shows as growth. When the run frees memory that was
            # counted several times, the threshold must go down, too.
            watched.suspicious_at = max(limit, min(watched.suspicious_at, growth + watched.room))
            is_quiet = growth <= watched.growth + _STILL
            watched.quiet_checks = watched.quiet_checks + 1 if is_quiet else 0
            watched.growth = growth
            after_s = poll_after_s(watched.suspicious_at, growth, watched.quiet_checks)
            at, may = min(at, now + after_s), min(may, now + after_s / 2)
        watched.check_at, watched.may_check_at = at, may
        return None
