"""A pool for visitors: what it shows them, and what it does for them."""

from __future__ import annotations

import os
from collections.abc import Callable

from compilepool.light_typing import Any
from compilepool.supervisor.answers import JobDumps, Tally
from compilepool.supervisor.clients import Clients
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.jobs import Jobs
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import RunTable
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Outcome
from compilepool.wire.pool_view import ClientView
from compilepool.wire.visiting import PoolLook, QueuedLook, WorkerLook

_QUEUE_SHOWN = 20


class VisitedPool:
    """What visitors see of a pool, and may do to it. They are of the pool's user.

    Args:
        clients: all clients.
        scheduler: the rules.
        crew: the processes.
        runs: the unfinished runs.
        jobs: the jobs that wait for them.
        dumps: answers what a run is doing.
        tally: counts what happens to the processes.
    """

    def __init__(
        self,
        clients: Clients,
        scheduler: Scheduler[Any],
        crew: Crew,
        runs: RunTable,
        jobs: Jobs,
        dumps: JobDumps,
        tally: Tally,
    ) -> None:
        self._clients = clients
        self._scheduler = scheduler
        self._crew = crew
        self._runs = runs
        self._jobs = jobs
        self._dumps = dumps
        self._tally = tally

    def look(self, seen: int, started: float, linger_s: float) -> PoolLook:
        """What a visitor sees.

        Args:
            seen: the number of the last failure that the visitor knows.
            started: when the supervisor has started, in seconds since the epoch.
            linger_s: the seconds that it lives without clients.
        """
        server = self._crew.fork_servers.current
        endings = self._jobs.endings
        return PoolLook(
            identity=self._clients.identity,
            pid=os.getpid(),
            started=started,
            linger_s=linger_s,
            clients=tuple(
                ClientView(each.visible_pid, each.name, len(each.runs)) for each in self._clients
            ),
            workers=tuple(map(self._worker, self._crew.workers.values())),
            fork_server=0 if server is None else server.pid,
            is_quiesced=self._tally.is_asleep,
            queued=self._scheduler.queued,
            queue=self._queue(),
            joined=self._runs.joined,
            reused=self._runs.reused,
            returned=endings.by_outcome[Outcome.RETURNED],
            raised=sum(endings.by_outcome) - endings.by_outcome[Outcome.RETURNED],
            failed=endings.failed,
            failures=endings.failures_since(seen),
        )

    def cancel(self, id: RunId) -> None:
        """Cancel all jobs that wait for a run, unless it has ended."""
        run = self._runs.get(id)
        for client, job in () if run is None else run.waiters:
            self._jobs.cancel(client, job)

    def dump(self, asker: object, id: RunId, tell: Callable[[JobSnapshot], None]) -> None:
        """Find out what a run is doing. `tell` is called once.

        Args:
            asker: who asks; an object that asks only once.
            id: the run.
            tell: called with what was found.
        """
        run = id if id in self._runs else None
        worker = None if run is None else self._scheduler.worker_of(id)
        if run is not None and worker is None and not self._scheduler.waits(id):
            run = None  # it ends in this turn of the loop
        self._dumps.answer(asker, tell, run, self._crew, worker)

    def quiesce(self) -> None:
        """Let the pool sleep after its jobs, as if all clients wanted that. A new job wakes it."""
        for client in self._clients:
            client.lets_sleep = True
        self._scheduler.quiesce(keeps_fork_server=True)

    def _worker(self, link: WorkerLink) -> WorkerLook:
        status = link.status
        run = self._runs.get(status.job)
        state = self._scheduler.activity_of(link.number)
        if run is None or link.runs[:1] != [status.job]:
            return WorkerLook(link.pid, state, 0, "", 0.0, "", 0.0, ())
        return WorkerLook(
            link.pid,
            state,
            status.job,
            run.name,
            status.since,
            status.phase,
            status.phase_since,
            run.client_pids(),
        )

    def _queue(self) -> tuple[QueuedLook, ...]:
        found = []
        if self._scheduler.queued:
            for id, run in self._runs.items():
                if run.waiters and self._scheduler.waits(id):
                    found.append(QueuedLook(id, run.name, run.client_pids()))
                    if len(found) == _QUEUE_SHOWN:
                        break
        return tuple(found)
