"""`JobRecord`: times, CPU time, memory and output of one job."""

from __future__ import annotations

import time

from compilepool.light_typing import Literal, NamedTuple
from compilepool.wire.messages import JOINED, REUSED
from compilepool.wire.usage import NO_USAGE, Usage, phases_of_text


class Phase(NamedTuple):
    """One phase of a job; see `compilepool.report_phase`.

    Attributes:
        name: the name that the job gave the phase.
        started: the time at which the phase began, in seconds since the epoch (`time.time()`).
        seconds: the phase's duration.
    """

    name: str
    started: float
    seconds: float


class JobRecord:
    """Times, CPU time, memory and output of a job. It is complete when the job's future is done.

    Times are in seconds since the epoch (`time.time()`). A time is None if the job never got there
    or the time is unknown. A job that is cancelled reports no times, CPU time or memory.

    Attributes:
        queued: the time of `submit`.
        started: the time at which a worker began the job; if it ran several times, the last of
            them.
        ended: the time at which the worker ended the job or died.
        cpu_seconds: CPU time of the job and of those of its children that it waited for. For a
            killed job: CPU time of the job and of every process that it started.
        peak_memory: bytes: the most that the job was seen to add to its worker's memory. A child's
            peak counts instead if it exceeds that of its worker and of all earlier children.
        worker_pid: the PID of the worker; 0 if no worker began the job.
        attempts: the number of times that a worker began the job.
        phases: the phases that the job reported, in order; for a killed job, only the last one.
        log: the end of what the job and its children wrote to their output and error output; "" if
            the pool does not capture it.
        shared: "joined" if the job has got the result of another job's run that had not ended,
            "reused" if that run had ended before this job was submitted, else "". The times are
            those of the run, so `started` may be before `queued`.
        node: the name of the node that the job ran on, where the pool has several; "" where not.
    """

    __slots__ = ("_clock", "_usage", "log", "node", "queued", "shared")

    def __init__(self) -> None:
        self.queued = 0.0
        self.log = ""
        self.node = ""
        self.shared: Literal["", "joined", "reused"] = ""
        self._usage = NO_USAGE
        self._clock = 0.0
        """Seconds to add to `time.monotonic()` for `time.time()`."""

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
        # A thread that an earlier job left running may report phases, too: they are dropped.
        known = [each for each in phases_of_text(usage.phases) if each[1] >= usage.started]
        ends = [since for _, since in [*known, ("", usage.ended)][1:]]
        return tuple(
            Phase(name, self._clock + since, max(0.0, end - since))
            for (name, since), end in zip(known, ends, strict=True)
        )

    @property
    def wall_seconds(self) -> float:
        """The job's duration in its worker, in seconds; 0 if no worker began it."""
        return self._usage.ended - self._usage.started

    @property
    def queue_seconds(self) -> float:
        """The time from `submit` until a worker began the job, in seconds; 0 if none did."""
        return 0.0 if self.started is None else max(0.0, self.started - self.queued)

    def __repr__(self) -> str:
        names = ("queued", "started", "ended", "cpu_seconds", "peak_memory", "worker_pid")
        known = [f"{name}={getattr(self, name)!r}" for name in (*names, "attempts", "phases")]
        return f"JobRecord({', '.join(known)})"


# For the session and its observers.


def note_shared(record: JobRecord, flag: int) -> None:
    """Note by the flag of a job's RESULT whether it was made for another job."""
    if flag & REUSED:
        record.shared = "reused"
    elif flag & JOINED:
        record.shared = "joined"


def note_usage(record: JobRecord, usage: Usage) -> None:
    """Put into a record what the supervisor tells; a job that was not begun has used nothing."""
    if usage.started:
        record._clock = time.time() - time.monotonic()
        record._usage = usage


def usage_of(record: JobRecord) -> Usage:
    """What the supervisor has told, with times as `time.monotonic()` has them."""
    return record._usage
