"""What is known of a job besides its result."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

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


@dataclasses.dataclass
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

    queued: float = 0.0
    started: float | None = None
    ended: float | None = None
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    worker_pid: int = 0
    attempts: int = 0
    phases: tuple[Phase, ...] = ()
    log: str = ""
    _usage: Usage = dataclasses.field(default=NO_USAGE, init=False, repr=False, compare=False)

    @property
    def wall_seconds(self) -> float:
        """For how long it ran, in seconds; 0 if it did not."""
        return 0.0 if self.started is None or self.ended is None else self.ended - self.started

    @property
    def queue_seconds(self) -> float:
        """For how long it waited, in seconds; 0 if it was not begun."""
        return 0.0 if self.started is None else max(0.0, self.started - self.queued)

    def _note(self, usage: Usage) -> None:
        """What the supervisor tells."""
        if not usage.started:
            return
        self._usage = usage
        now = time.time() - time.monotonic()
        self.started, self.ended = now + usage.started, now + usage.ended
        self.cpu_seconds = usage.cpu_s
        self.peak_memory = usage.peak_bytes
        self.worker_pid = usage.pid
        self.attempts = usage.attempts
        # What a thread of an earlier job has reported since is none of this one's.
        known = [each for each in phases_of_text(usage.phases) if each[1] >= usage.started]
        ends = [since for _, since in [*known, ("", usage.ended)][1:]]
        self.phases = tuple(
            Phase(name, now + since, max(0.0, end - since))
            for (name, since), end in zip(known, ends, strict=True)
        )
