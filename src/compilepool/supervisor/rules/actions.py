"""What the scheduler wants done, in its words."""

from __future__ import annotations

from compilepool.light_typing import Generic, NamedTuple, TypeAlias, TypeVar

Job: TypeAlias = int
Worker: TypeAlias = int
Cause = TypeVar("Cause")
"""Why something failed; opaque here."""


class StartWorker(NamedTuple):
    worker: Worker


class SendJob(NamedTuple):
    worker: Worker
    job: Job


class TakeBack(NamedTuple):
    """Take all unread jobs from the worker's socket, then call `taken_back`, even with none."""

    worker: Worker


class EndWorker(NamedTuple):
    """Let the worker, which has no job, exit in order; `worker_lost` follows within a bound."""

    worker: Worker


class KillWorker(NamedTuple):
    worker: Worker


class EndForkServer(NamedTuple):
    """No worker is left, and none is needed for now."""


class ReplaceForkServer(NamedTuple):
    """Workers that are started from now on come from a new one."""


class ReportStarted(NamedTuple):
    job: Job


class ReportCancelled(NamedTuple):
    """The job has ended, cancelled."""

    job: Job


class ReportNoWorkers(NamedTuple, Generic[Cause]):
    """Workers cannot be had, at least for now: whoever waits for them should know."""

    cause: Cause


class FailJob(NamedTuple, Generic[Cause]):
    """The job has ended without a result of its own."""

    job: Job
    cause: Cause


Action: TypeAlias = (
    StartWorker
    | SendJob
    | TakeBack
    | EndWorker
    | KillWorker
    | EndForkServer
    | ReplaceForkServer
    | ReportStarted
    | ReportCancelled
    | ReportNoWorkers[Cause]
    | FailJob[Cause]
)
