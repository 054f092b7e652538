"""What is known of a job besides its result."""

from __future__ import annotations

import time

from compilepool.light_typing import NamedTuple
from compilepool.wire.usage import NO_USAGE, Usage, phases_of_text


class Phase(NamedTuple):
    """What a job said that it did; see `report_phase`.

    Attributes:
        name: the phase.
        started: when it began, as `time.time()` has it.
        seconds: for how long it lasted.
    """

    name: str
    started: float
    seconds: float


class JobRecord:
    """What is known of a job; it is complete when the job's future is done.

    Times are in seconds, as `time.time()` has them; None if it did not come to that, or nobody
    knows: a job that is cancelled tells no more.

    Attributes:
        queued: when it was submitted.
        started: when its worker began it, for the last time.
        ended: when its worker ended it, or died.
        cpu_seconds: CPU time of the job and of the children that it has waited for; of a job that
            was killed, all that it has started.
        peak_memory: bytes of memory, the most that the job was seen to add to its worker, or that
            a child of it had, if that is more than its worker, and all children before it, had.
        worker_pid: pid of its worker; 0 if it had none.
        attempts: how often it was begun; 0 if it was not.
        phases: what it said that it did, in order; of a job that was killed, the last phase only.
        log: the end of what the job and its children have written to their output and error
            output, if it is captured.
    """

    __slots__ = ("_clock", "_usage", "log", "queued")

    def __init__(self) -> None:
        self.queued = 0.0
        self.log = ""
        self._usage = NO_USAGE
        self._clock = 0.0  # what `time.monotonic()` lacks to `time.time()`

    @property
    def started(self) -> float | None:
        return self._clock + self._usage.started if self._usage.started else None

    @property
    def ended(self) -> float | None:
        return self._clock + self._usage.ended if self._usage.started else None

    @property
    def cpu_seconds(self) -> float:
        return self._usage.cpu_s

    @property
    def peak_memory(self) -> int:
        return self._usage.peak_bytes

    @property
    def worker_pid(self) -> int:
        return self._usage.pid

    @property
    def attempts(self) -> int:
        return self._usage.attempts if self._usage.started else 0

    @property
    def phases(self) -> tuple[Phase, ...]:
        usage = self._usage
        # What a thread of an earlier job has reported since is none of this one's.
        known = [each for each in phases_of_text(usage.phases) if each[1] >= usage.started]
        ends = [since for _, since in [*known, ("", usage.ended)][1:]]
        return tuple(
            Phase(name, self._clock + since, max(0.0, end - since))
            for (name, since), end in zip(known, ends, strict=True)
        )

    @property
    def wall_seconds(self) -> float:
        """For how long it ran, in seconds; 0 if it did not."""
        return self._usage.ended - self._usage.started

    @property
    def queue_seconds(self) -> float:
        """For how long it waited, in seconds; 0 if it was not begun."""
        return 0.0 if self.started is None else max(0.0, self.started - self.queued)

    def __repr__(self) -> str:
        names = ("queued", "started", "ended", "cpu_seconds", "peak_memory", "worker_pid")
        known = [f"{name}={getattr(self, name)!r}" for name in (*names, "attempts", "phases")]
        return f"JobRecord({', '.join(known)})"


# For the session and its observers.


def note_usage(record: JobRecord, usage: Usage) -> None:
    """Put into a record what the supervisor tells; a job that was not begun has used nothing."""
    if usage.started:
        record._clock = time.time() - time.monotonic()
        record._usage = usage


def usage_of(record: JobRecord) -> Usage:
    """What the supervisor has told, with times as `time.monotonic()` has them."""
    return record._usage
