"""Answers to clients' questions: what a job is doing, and the state of the pool."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.light_typing import Any
from compilepool.supervisor.clients import Client, Clients
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import RunTable
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.pool_view import PoolView, WorkerView


class JobDumps:
    """Answers what a job is doing.

    Args:
        runs: the unfinished runs.
    """

    def __init__(self, runs: RunTable) -> None:
        self._runs = runs
        self._pending: set[object] = set()

    def answer(
        self,
        asker: object,
        tell: Callable[[JobSnapshot], None],
        run: RunId | None,
        crew: Crew,
        worker: WorkerId | None,
    ) -> None:
        """Make a snapshot of a job. While one is made, a second question of the asker is dropped.

        Args:
            asker: who asks.
            tell: called once with the snapshot.
            run: the run that the job waits for; None if the job has ended.
            crew: the processes.
            worker: the worker that has the run; None if no worker has it.
        """

        if run is None:
            tell(JobSnapshot("ended"))
            return

        def on_snapshot(snapshot: JobSnapshot) -> None:
            self._pending.discard(asker)
            tell(snapshot if run in self._runs else JobSnapshot("ended"))

        if asker in self._pending:
            return
        if worker is None or not crew.workers.has_begun(worker, run):
            tell(JobSnapshot("queued"))
        else:
            self._pending.add(asker)
            crew.take_snapshot(worker, on_snapshot)


class Tally:
    """Counts what happens to the processes of one pool.

    Attributes:
        fork_servers_lost: the number of fork servers that have died and were not told to exit.
        workers_lost: the number of workers that have died and were not told to exit.
    """

    def __init__(self) -> None:
        self.fork_servers_lost = 0
        self.workers_lost = 0
        self._slept_s = 0.0
        self._asleep_since: float | None = None

    @property
    def is_asleep(self) -> bool:
        """Whether the pool is asleep."""
        return self._asleep_since is not None

    def note_sleep(self, now: float, *, is_asleep: bool) -> bool:
        """Note whether the pool is asleep. Returns whether that has changed."""
        if is_asleep == (self._asleep_since is not None):
            return False
        if self._asleep_since is not None:
            self._slept_s += now - self._asleep_since
        self._asleep_since = now if is_asleep else None
        return True

    def note_queues(self, clients: Clients, scheduler: Scheduler[Any], runs: RunTable) -> None:
        """Note how many jobs of each client wait, if there are several."""
        for client in clients if clients.identity else ():
            if len(client.runs) > client.max_queued:
                waiting = _queued_of(client, scheduler, runs)
                client.max_queued = max(client.max_queued, waiting)

    def view(
        self,
        client: Client | None,
        clients: Clients,
        scheduler: Scheduler[Any],
        crew: Crew,
        runs: RunTable,
        now: float,
    ) -> PoolView:
        """The state of the pool. Of a shared one, a client sees its own jobs only.

        Args:
            client: the client; None for a view of the whole pool.
            clients: all clients.
            scheduler: the rules.
            crew: the processes.
            runs: the unfinished runs.
            now: the time, by `time.monotonic()`.
        """
        queued, max_queued = scheduler.queued, scheduler.max_queued
        if client is not None and clients.identity:
            queued, max_queued = _queued_of(client, scheduler, runs), client.max_queued
        slept_s = self._slept_s
        if self._asleep_since is not None:
            slept_s += now - self._asleep_since
        server = crew.fork_servers.current
        return PoolView(
            tuple(
                _worker_view(client, scheduler.activity_of(link.number), link, runs)
                for link in crew.workers.values()
            ),
            clients.views(),
            clients.identity,
            runs.joined,
            runs.reused,
            queued,
            max_queued,
            0 if server is None else server.pid,
            0.0 if server is None else server.ready_at,
            self.fork_servers_lost,
            self.workers_lost,
            scheduler.recycled,
            self._asleep_since is not None,
            slept_s,
            scheduler.is_short_of_memory,
        )


def _queued_of(client: Client, scheduler: Scheduler[Any], runs: RunTable) -> int:
    """The number of a client's jobs whose runs have not begun."""
    begun = [runs.get(id) for id in scheduler.first_runs().values()]
    waiters = [waiter for run in begun if run is not None for waiter in run.waiters]
    return len(client.runs) - sum(1 for waiter in waiters if waiter.client is client)


def _worker_view(
    client: Client | None, activity: str, link: WorkerLink, runs: RunTable
) -> WorkerView:
    status = link.status
    run = runs.get(status.job)
    if run is None or link.runs[:1] != [status.job]:
        return WorkerView(link.pid, activity)
    return WorkerView(
        link.pid,
        activity,
        0 if client is None else run.id_for(client),
        status.since,
        status.phase,
        status.phase_since,
    )
