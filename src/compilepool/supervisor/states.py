"""What the scheduler knows of each job and each worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from compilepool.supervisor.actions import Job, Worker


@dataclass(slots=True)
class JobState:
    """A job that has not ended.

    Attributes:
        may_go_ahead: whether it may wait in a busy worker's socket.
        priority: those with a higher one go first.
        retries: how often it may still run again, if its worker is lost through no fault of its.
        reruns: how often it has run again with another fork server.
        attempts: how often it was begun, this time included.
        is_cancelled: whether nobody wants it any more.
        worker: who has it; None while it is queued.
    """

    may_go_ahead: bool
    priority: int = 0
    retries: int = 0
    reruns: int = 0
    attempts: int = 1
    is_cancelled: bool = False
    worker: Worker | None = None


@dataclass(slots=True)
class WorkerState:
    """A worker that lives, or is being started.

    Attributes:
        is_ready: whether it has started.
        is_retired: whether it gets no more jobs.
        is_killed: whether it was to be killed.
        jobs: those that it has, in the order sent.
        since: when the first of them became the first.
        is_report_due: whether to report, when its unread jobs have been taken back, that it runs.
    """

    is_ready: bool = False
    is_retired: bool = False
    is_killed: bool = False
    jobs: list[Job] = field(default_factory=list)
    since: float = 0.0
    is_report_due: bool = False
