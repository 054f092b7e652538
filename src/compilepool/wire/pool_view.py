"""A pool at one moment, as its supervisor sees it: for statistics and the progress display."""

from __future__ import annotations

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import ProtocolError
from compilepool.wire.payloads import Payload, Unpacked, pack


class WorkerView(NamedTuple):
    """A worker at one moment. Times are of `time.monotonic()`, which is the same in all processes.

    Attributes:
        pid: The worker's pid; 0 if its process does not exist yet.
        state: "starting", "idle", "busy" or "leaving".
        job: The client's number of the running job; 0 if none runs.
        since: The time at which that job began.
        phase: The phase that the job has reported last; empty if none.
        phase_since: The time at which that phase began.
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
        return all(isinstance(number, int | float) for number in numbers) and all(
            isinstance(text, str) for text in (self.state, self.phase)
        )


class PoolView(NamedTuple):
    """The processes and the queue of a supervisor.

    Attributes:
        workers: All workers.
        queued: The number of jobs that have not begun.
        max_queued: The largest number of such jobs so far.
        fork_server: The pid of the fork server; 0 if there is none.
        preloaded_at: The time at which the fork server finished the preload, by `time.monotonic()`;
            0 if it has not.
        fork_servers_lost: The number of fork servers that have died.
        workers_lost: The number of workers that died although nobody had told them to end.
        workers_recycled: The number of workers that were replaced for their number of jobs or their
            memory.
        is_quiesced: Whether the pool sleeps.
        quiesced_s: The seconds that it has slept in total.
    """

    workers: tuple[WorkerView, ...] = ()
    queued: int = 0
    max_queued: int = 0
    fork_server: int = 0
    preloaded_at: float = 0.0
    fork_servers_lost: int = 0
    workers_lost: int = 0
    workers_recycled: int = 0
    is_quiesced: bool = False
    quiesced_s: float = 0.0

    def payload(self) -> Payload:
        """What the PEEKED message carries."""
        import json

        return pack([[json.dumps(self).encode()]])

    @classmethod
    def of_payload(cls, payload: Payload) -> PoolView:
        """What is in a payload, which is closed. Raises `ProtocolError` if that is none."""
        import json

        with Unpacked(payload) as unpacked:
            data = bytes(unpacked.stream)
        try:
            workers, *rest = json.loads(data)
            peek = cls(tuple(WorkerView(*worker) for worker in workers), *rest)
        except (ValueError, TypeError, RecursionError):
            raise ProtocolError("not a look at a pool") from None
        if not peek._is_valid():
            raise ProtocolError("a look at a pool with wrong values")
        return peek

    def _is_valid(self) -> bool:
        numbers = self[1:]
        return all(worker.is_valid() for worker in self.workers) and all(
            isinstance(number, int | float) for number in numbers
        )
