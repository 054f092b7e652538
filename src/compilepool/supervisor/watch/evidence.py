"""What the supervisor learns about the end of a worker before the worker is dead."""

from __future__ import annotations

import signal

from compilepool.wire.failure import Cause, ProcessMemory
from compilepool.wire.job_snapshot import JobSnapshot


class Crash:
    """A worker's crash.

    Attributes:
        signal: the fatal signal; None if there was none.
        text: what faulthandler has written about it.
        seen_at: the time at which the supervisor saw the crash, by `time.monotonic()`; 0 if it saw
            none.
        native: what the inspector has found, as JSON lines of a `NativeReport`.
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
    """Why the run that a worker has begun must end.

    Attributes:
        cause: TIMEOUT or MEMORY.
        limit: the limit that the run has exceeded, in seconds or bytes.
        used_bytes: for MEMORY, the bytes that the run took.
        processes: for MEMORY, the processes that took them, the largest first.
        snapshot: what the run was doing then; None until that is known.
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
    """The evidence about the end of one worker.

    Attributes:
        crash: the worker's crash; None until it is seen.
        verdict: why the worker's run must end; None while it is within its limits.
        is_suspected: whether an inspector is finding out if the worker has crashed.
    """

    def __init__(self) -> None:
        self.crash: Crash | None = None
        self.verdict: Verdict | None = None
        self.is_suspected = False
