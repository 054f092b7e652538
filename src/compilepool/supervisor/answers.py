"""Answers to what clients ask: what a job does, and how the pool is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compilepool.light_typing import Any
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import Run
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Kind
from compilepool.wire.pool_view import PoolView, WorkerView


class Dumps:
    """The jobs that are being looked into for a client.

    Args:
        has_ended: tells whether a job has ended.
    """

    def __init__(self, has_ended: Callable[[int], bool]) -> None:
        self._has_ended = has_ended
        self._running: set[int] = set()

    def answer(self, client: ClientLink, id: int, crew: Crew | None, worker: int | None) -> None:
        """Tell what a job does just now. A question asked again gets the answer to the first.

        Args:
            client: who asks.
            id: the client's number of the job.
            crew: where it runs, if anywhere.
            worker: who has it; None if nobody has.
        """
        number = client.jobs.get(id)

        def tell(snapshot: JobSnapshot) -> None:
            client.send(snapshot.payload().message(Kind.DUMPED, id))

        def looked_into(snapshot: JobSnapshot) -> None:
            assert number is not None
            self._running.discard(number)
            tell(JobSnapshot("ended") if self._has_ended(number) else snapshot)

        if number is None:
            tell(JobSnapshot("ended"))
        elif number in self._running:
            return
        elif worker is None or crew is None or not crew.runs(worker, number):
            tell(JobSnapshot("queued"))
        else:
            self._running.add(number)
            crew.look_into(worker, looked_into)


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
        self, scheduler: Scheduler[Any], crew: Crew, jobs: Mapping[int, Run], now: float
    ) -> PoolView:
        """How things are."""
        slept_s = self._slept_s
        if self._asleep_since is not None:
            slept_s += now - self._asleep_since
        server = crew.fork_servers.current
        return PoolView(
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


def _worker_peek(state: str, link: WorkerLink, jobs: Mapping[int, Run]) -> WorkerView:
    status = link.status
    if link.jobs[:1] != [status.job] or status.job not in jobs:
        return WorkerView(link.pid, state)
    return WorkerView(
        link.pid,
        state,
        jobs[status.job].id,
        status.since,
        status.phase,
        status.phase_since,
    )
