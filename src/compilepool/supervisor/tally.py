"""Counts what happens to the processes of a pool, for its statistics."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.supervisor.crew import Crew
from compilepool.supervisor.job import Job
from compilepool.supervisor.scheduler import Scheduler
from compilepool.supervisor.worker_link import WorkerLink
from compilepool.wire.light_typing import Any
from compilepool.wire.peek import PoolPeek, WorkerPeek


class Tally:
    """What has happened to the processes of one pool."""

    def __init__(self) -> None:
        self.fork_servers_lost = 0
        self.workers_lost = 0
        self._slept_s = 0.0
        self._asleep_since: float | None = None

    def note_sleep(self, now: float, *, is_asleep: bool) -> bool:
        """Whether the pool sleeps now. Returns whether that is news."""
        if is_asleep == (self._asleep_since is not None):
            return False
        if self._asleep_since is not None:
            self._slept_s += now - self._asleep_since
        self._asleep_since = now if is_asleep else None
        return True

    def peek(
        self, scheduler: Scheduler[Any], crew: Crew, jobs: Mapping[int, Job], now: float
    ) -> PoolPeek:
        """How things are."""
        slept_s = self._slept_s
        if self._asleep_since is not None:
            slept_s += now - self._asleep_since
        server = crew.fork_servers.current
        return PoolPeek(
            tuple(
                _worker_peek(scheduler.state_of(link.number), link, jobs) for link in crew.workers
            ),
            scheduler.queued,
            scheduler.max_queued,
            0 if server is None else server.pid,
            0.0 if server is None else server.ready_at,
            self.fork_servers_lost,
            self.workers_lost,
            scheduler.recycled,
            self._asleep_since is not None,
            slept_s,
        )


def _worker_peek(state: str, link: WorkerLink, jobs: Mapping[int, Job]) -> WorkerPeek:
    status = link.status
    if link.jobs[:1] != [status.job] or status.job not in jobs:
        return WorkerPeek(link.pid, state)
    return WorkerPeek(
        link.pid,
        state,
        jobs[status.job].id,
        status.since,
        status.phase,
        status.phase_since,
    )
