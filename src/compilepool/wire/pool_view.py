"""A pool at one moment, as its supervisor sees it: for statistics and the progress display."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import all_are, check
from compilepool.wire.payloads import Payload, pack_json, unpack_json


class WorkerView(NamedTuple):
    """A worker at one moment. Times are of `time.monotonic()`, which is the same in all processes.

    Attributes:
        pid: the worker's PID; 0 if its process does not exist yet.
        state: "starting", "idle", "busy" or "leaving".
        job: the client's number of the running job; 0 if none runs.
        since: the time at which that job began.
        phase: the phase that the job has reported last; empty if none.
        phase_since: the time at which that phase began.
    """

    pid: int
    state: str
    job: int = 0
    since: float = 0.0
    phase: str = ""
    phase_since: float = 0.0

    def is_valid(self) -> bool:
        """Whether the values are of the right types."""
        numbers = (self.pid, self.job, self.since, self.phase_since)
        return all_are(int | float, *numbers) and all_are(str, self.state, self.phase)


class ClientView(NamedTuple):
    """One client of a shared pool.

    Attributes:
        pid: its PID.
        name: its name, for people.
        jobs: the number of its unfinished jobs.
    """

    pid: int
    name: str
    jobs: int

    def is_valid(self) -> bool:
        """Whether the values are of the right types."""
        return all_are(int, self.pid, self.jobs) and isinstance(self.name, str)


class PoolView(NamedTuple):
    """The processes and the queue of a supervisor.

    In a shared pool, the queue is that of the client that asks.

    Attributes:
        workers: all workers.
        clients: all clients of a shared pool; empty if the pool is private.
        identity: what the clients of a shared pool have in common; empty if the pool is private.
        joined: the number of jobs, of all clients, that have joined the run of another job.
        reused: the number of jobs, of all clients, that have got a kept result.
        queued: the number of jobs that have not begun.
        max_queued: the largest number of such jobs so far.
        fork_server: the PID of the fork server; 0 if there is none.
        preloaded_at: the time at which the fork server finished the preload, by `time.monotonic()`;
            0 if it has not.
        fork_servers_lost: the number of fork servers that have died.
        workers_lost: the number of workers that have died and were not told to exit.
        workers_recycled: the number of workers that were replaced after their last job or for their
            memory.
        is_quiesced: whether the pool sleeps.
        quiesced_s: the seconds that it has slept in total.
        is_short_of_memory: whether runs wait for memory, though there is room for a worker.
    """

    workers: tuple[WorkerView, ...] = ()
    clients: tuple[ClientView, ...] = ()
    identity: str = ""
    joined: int = 0
    reused: int = 0
    queued: int = 0
    max_queued: int = 0
    fork_server: int = 0
    preloaded_at: float = 0.0
    fork_servers_lost: int = 0
    workers_lost: int = 0
    workers_recycled: int = 0
    is_quiesced: bool = False
    quiesced_s: float = 0.0
    is_short_of_memory: bool = False

    def payload(self) -> Payload:
        """The payload of the VIEWED message."""
        return pack_json(self)

    @classmethod
    def of_payload(cls, payload: Payload) -> PoolView:
        """The view in a payload, which is closed.

        Raises:
            ProtocolError: the payload holds no valid view.
        """
        return unpack_json(payload, cls._of_values, "a view of a pool")

    @classmethod
    def _of_values(cls, values: list[Any]) -> PoolView:
        workers, clients, identity, *numbers = values
        view = cls(
            tuple(WorkerView(*worker) for worker in workers),
            tuple(ClientView(*client) for client in clients),
            identity,
            *numbers,
        )
        check(all_are(int | float, *numbers) and isinstance(identity, str))
        check(all(worker.is_valid() for worker in view.workers))
        check(all(client.is_valid() for client in view.clients))
        return view
