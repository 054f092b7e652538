"""What the scheduler wants done, in its words."""

from __future__ import annotations

from compilepool.light_typing import Generic, NamedTuple, TypeAlias, TypeVar

RunId: TypeAlias = int
WorkerId: TypeAlias = int
Reason = TypeVar("Reason")
"""Why something failed. The rules hand it on, and do not look into it."""


class StartWorker(NamedTuple):
    """Start a worker's process. `Scheduler.worker_refused` follows at once if that fails."""

    worker: WorkerId


class SendRun(NamedTuple):
    """Put a run into the worker's socket, behind those that it has."""

    worker: WorkerId
    run: RunId


class TakeBack(NamedTuple):
    """Take all unread runs from the worker's socket, and call `Scheduler.taken_back`, even if none.

    Until all answers are there, the scheduler gives no run to anybody.
    """

    worker: WorkerId


class EndWorker(NamedTuple):
    """Let the worker, which has no run, exit in order; `worker_lost` follows within a bound."""

    worker: WorkerId


class KillWorker(NamedTuple):
    """End the worker and the run that it has; `worker_lost` follows within a bound."""

    worker: WorkerId


class EndForkServer(NamedTuple):
    """Let the fork server exit: no worker is left, and none is needed for now."""


class ReplaceForkServer(NamedTuple):
    """Start another fork server: workers that start from now on come from that one."""


class ReportStarted(NamedTuple):
    """Tell whoever waits for the run that it has begun, and turns out to be long."""

    run: RunId


class ReportCancelled(NamedTuple):
    """The run has ended, cancelled."""

    run: RunId


class ReportNoWorkers(NamedTuple, Generic[Reason]):
    """Tell whoever waits for workers that they cannot be had, at least for now."""

    reason: Reason


class FailRun(NamedTuple, Generic[Reason]):
    """The run has ended without a result of its own."""

    run: RunId
    reason: Reason


Action: TypeAlias = (
    StartWorker
    | SendRun
    | TakeBack
    | EndWorker
    | KillWorker
    | EndForkServer
    | ReplaceForkServer
    | ReportStarted
    | ReportCancelled
    | ReportNoWorkers[Reason]
    | FailRun[Reason]
)
