"""What is known of memory before a job starts: how much there is, and how much the job takes."""

from __future__ import annotations

import time

from compilepool.supervisor.job import Job
from compilepool.supervisor.machine_memory import MachineMemory
from compilepool.supervisor.memory_history import NEGLIGIBLE, MemoryHistory

OLD_S = 0.25
"""Seconds after which it is looked at again how much memory there is, before a job starts."""

SHORT_S = 0.05
"""Likewise, if jobs wait for it."""


class MemoryRoom:
    """The memory of the machine, and what the jobs of one pool took of it."""

    def __init__(self) -> None:
        self._machine = MachineMemory()
        self._history = MemoryHistory()
        self._seen_at = 0.0

    def expected(self, job: Job) -> int:
        """How many bytes a job will probably take; 0 if that is little, or unknown."""
        declared = job.terms.expected_memory
        if declared is not None:
            return declared
        return self._history.expected(job.kind) if self._history else 0

    def note(self, job: Job, peak_bytes: int) -> None:
        """A job has taken so much."""
        if self._history or peak_bytes >= NEGLIGIBLE:
            self._history.note(job.kind, peak_bytes)

    def free(self, age_s: float) -> int | None:
        """How many bytes there are for jobs, see `MachineMemory.free`.

        Returns:
            None if that was told within the last `age_s` seconds, or nobody knows.
        """
        now = time.monotonic()
        if now - self._seen_at < age_s:
            return None
        self._seen_at = now
        return self._machine.free()
