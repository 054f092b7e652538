"""What is found out about the end of a worker before it is dead."""

from __future__ import annotations

import signal

from compilepool.wire.failure import Cause, ProcessMemory
from compilepool.wire.job_snapshot import JobSnapshot


class Crash:
    """A worker's crash.

    Attributes:
        signal: the fatal signal; None if there was none.
        text: what faulthandler has written about it.
        seen_at: when the supervisor saw it, by `time.monotonic()`; 0 if it did not.
        native: what the inspector has found in the worker, JSON lines of a `NativeReport`.
    """

    def __init__(
        self,
        signal: signal.Signals | None,
        text: str = "",
        seen_at: float = 0.0,
        native: str = "",
    ) -> None:
        self.signal = signal
        self.text = text
        self.seen_at = seen_at
        self.native = native


class Verdict:
    """Why the job that a worker runs must end.

    Attributes:
        cause: TIMEOUT or MEMORY.
        limit: the limit that the job has gone over, in seconds or bytes.
        used_bytes: for MEMORY, what the job took.
        processes: for MEMORY, the processes that took it, the largest first.
        snapshot: what the job did at that time, as far as it could be found out.
    """

    def __init__(
        self,
        cause: Cause,
        limit: float,
        used_bytes: int = 0,
        processes: tuple[ProcessMemory, ...] = (),
    ) -> None:
        self.cause = cause
        self.limit = limit
        self.used_bytes = used_bytes
        self.processes = processes
        self.snapshot: JobSnapshot | None = None


class Evidence:
    """All that is known about the end of one worker.

    Attributes:
        crash: its crash, once that was seen.
        verdict: why it must die, if its job has gone over a limit.
        is_suspected: whether an inspector looks just now whether it has crashed.
    """

    def __init__(self) -> None:
        self.crash: Crash | None = None
        self.verdict: Verdict | None = None
        self.is_suspected = False
