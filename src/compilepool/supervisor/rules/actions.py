"""The actions that the scheduler asks for."""

from __future__ import annotations

from compilepool.light_typing import Generic, NamedTuple, TypeAlias, TypeVar

RunId: TypeAlias = int
WorkerId: TypeAlias = int
Reason = TypeVar("Reason")
"""Why something failed. The rules pass it on without reading it."""


class StartWorker(NamedTuple):
    """Start a worker's process. If that fails, call `Scheduler.worker_refused` at once."""

    worker: WorkerId


class SendRun(NamedTuple):
    """Put a run into the worker's socket, behind the runs that the worker has."""

    worker: WorkerId
    run: RunId


class TakeBack(NamedTuple):
    """Take all unread runs from the worker's socket, and pass them to `Scheduler.taken_back`.

    Call it even if there were none. Until all such calls have come, the scheduler gives out no run.
    """

    worker: WorkerId


class EndWorker(NamedTuple):
    """Let the worker, which has no run, exit. `Scheduler.worker_lost` follows within a bound."""

    worker: WorkerId


class KillWorker(NamedTuple):
    """End the worker and its current run. `Scheduler.worker_lost` follows within a bound."""

    worker: WorkerId


class EndForkServer(NamedTuple):
    """Let the fork server exit, because no worker is left and none is needed for now."""


class ReplaceForkServer(NamedTuple):
    """Start another fork server, which starts all later workers."""


class ReportStarted(NamedTuple):
    """Tell the run's waiters that it has begun. It turns out to be long.

    Attributes:
        run: the run.
        is_read: whether its worker is known to have read it. Else, if the worker has not begun it,
            call `Scheduler.not_begun` instead.
    """

    run: RunId
    is_read: bool = False


class ForgetRun(NamedTuple):
    """Drop a cancelled run, which has ended. Nobody waits for it."""

    run: RunId


class ReportNoWorkers(NamedTuple, Generic[Reason]):
    """Tell the clients that no worker can be started, at least for now."""

    reason: Reason


class FailRun(NamedTuple, Generic[Reason]):
    """Tell the run's waiters that it has ended without a result, and why."""

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
    | ForgetRun
    | ReportNoWorkers[Reason]
    | FailRun[Reason]
)


def is_void_without(worker: WorkerId, action: Action[Reason]) -> bool:
    """Whether the action makes no sense any more when the worker is dead."""
    return isinstance(action, EndWorker | KillWorker | TakeBack) and action.worker == worker
