"""What the scheduler knows of each job and each worker."""

from __future__ import annotations

from compilepool.supervisor.rules.actions import Job, Worker


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

    __slots__ = (
        "attempts",
        "is_cancelled",
        "may_go_ahead",
        "priority",
        "reruns",
        "retries",
        "worker",
    )

    def __init__(self, may_go_ahead: bool, priority: int = 0, retries: int = 0) -> None:
        self.may_go_ahead = may_go_ahead
        self.priority = priority
        self.retries = retries
        self.reruns = 0
        self.attempts = 1
        self.is_cancelled = False
        self.worker: Worker | None = None


class WorkerState:
    """A worker that lives, or is being started.

    Attributes:
        is_ready: whether it has started.
        is_retired: whether it gets no more jobs, and ends before long.
        is_killed: whether it was to be killed.
        is_dismissed: whether it was to exit in order.
        is_expiring: whether it gets no more jobs, and ends when it has none.
        has_last_job: likewise, unless a job is taken back: it has had as many as it may.
        jobs: those that it has, in the order sent.
        served: how many jobs have ended in it.
        since: when the first of them became the first, or it became idle.
        is_report_due: whether to report, when its unread jobs have been taken back, that it runs.
    """

    __slots__ = (
        "has_last_job",
        "is_dismissed",
        "is_expiring",
        "is_killed",
        "is_ready",
        "is_report_due",
        "is_retired",
        "jobs",
        "served",
        "since",
    )

    def __init__(self) -> None:
        self.is_ready = False
        self.is_retired = False
        self.is_killed = False
        self.is_dismissed = False
        self.is_expiring = False
        self.has_last_job = False
        self.jobs: list[Job] = []
        self.served = 0
        self.since = 0.0
        self.is_report_due = False

    @property
    def may_have_more(self) -> bool:
        """Whether it may have more jobs than it has."""
        return not (self.is_retired or self.is_expiring or self.has_last_job)
