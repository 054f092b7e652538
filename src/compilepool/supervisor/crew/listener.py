"""Who is told what happens to the crew."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.light_typing import Protocol
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Level, Message
from compilepool.wire.payloads import Payload


class Listener(Protocol):
    """Who is told what happens to the crew."""

    def worker_ready(self, worker: int) -> None:
        """It has started."""

    def job_ended(self, worker: int, result: Message) -> None:
        """It sent the RESULT of a job. Takes over the message's descriptors.

        Raises:
            ProtocolError: that job was not its to end.
        """

    def worker_crashing(self, worker: int) -> None:
        """It has crashed, and is looked into; `worker_lost` follows within a bound."""

    def over_limit(self, worker: int, job: int) -> bool:
        """The job, which the worker runs, must end. False: it, or the worker, ends anyway."""
        ...

    def idle_memory(self, size: int) -> None:
        """So many bytes does a worker take that has no job; told once."""

    def attempts_of(self, job: int) -> int:
        """How often a job was begun; 1 if it has ended."""
        ...

    def worker_lost(self, worker: int, last_started: int, why: Failure) -> None:
        """It is dead; all that it had sent has been heard. 0: it has started no job."""

    def job_output(self, job: int, tail: bytes) -> None:
        """The end of the output of a job that has ended, as is told next."""

    def name_of(self, job: int) -> str | None:
        """The name of a job; None if it has ended."""

    def crew_lost(
        self,
        last_started: Mapping[int, int],
        why: Failure,
        why_no_worker: Failure,
        *,
        was_leaving: bool,
    ) -> None:
        """A fork server is dead, and its workers with it; see `Scheduler.fork_server_lost`."""

    def preload_failed(self, why: Failure) -> None:
        """No worker can be started, ever."""

    def initializer_failed(self, outcome: int, payload: Payload) -> None:
        """Likewise; the payload is that of a RESULT with this outcome."""

    def log(self, level: Level, source: str, text: str) -> None:
        """For the client's logging: the logger of a module of ours, by name."""
