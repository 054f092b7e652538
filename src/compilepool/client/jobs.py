"""The jobs that have not ended."""

from __future__ import annotations

import threading
from typing import Any

from compilepool.client.future import CompileFuture
from compilepool.wire.payloads import Payload

_MAX_HELD_FDS = 64


class Job:
    """A job: its name, its call as sent, its future, and how often it was sent."""

    __slots__ = ("future", "name", "payload", "sends")

    def __init__(self, name: str, payload: Payload, future: CompileFuture[Any]) -> None:
        self.name = name
        self.payload = payload
        self.future = future
        self.sends = 0


class JobTable:
    """The unfinished jobs by id, in the order submitted. Whoever pops a job ends its future.

    Calls are kept until the job ends, to be sent again if the supervisor dies. Of large ones only
    so many are kept as descriptors, of which a program has few; the others as bytes.

    `lock` guards the table and all state of the session; futures get their results, and so run
    their callbacks, outside it. Reentrant, because a signal handler or a finalizer may submit.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._jobs: dict[int, Job] = {}
        self._held_fds = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def items(self) -> list[tuple[int, Job]]:
        """All jobs, as they are now."""
        return list(self._jobs.items())

    def add(self, id: int, name: str, payload: Payload, future: CompileFuture[Any]) -> Job:
        """A new job. Takes over the payload."""
        if payload.fd >= 0 and self._held_fds >= _MAX_HELD_FDS:
            payload = payload.spill()
        self._held_fds += payload.fd >= 0
        job = self._jobs[id] = Job(name, payload, future)
        return job

    def get(self, id: int) -> Job | None:
        """The job, if it has not ended."""
        return self._jobs.get(id)

    def pop(self, id: int) -> Job | None:
        """Take the job from the table, to end it; None if somebody has."""
        with self.lock:
            job = self._jobs.pop(id, None)
            if job is not None:
                self._held_fds -= job.payload.fd >= 0
                job.payload.close()
            return job

    def renew_lock(self) -> None:
        """After a fork: the lock may have been held by a thread that is not in this process."""
        self.lock = threading.RLock()
