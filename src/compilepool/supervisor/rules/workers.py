"""The workers, and which of them can have a job: pure."""

from __future__ import annotations

from collections.abc import Iterator

from compilepool.supervisor.rules.actions import Job, Worker
from compilepool.supervisor.rules.states import WorkerState


class Roster:
    """All workers of a pool.

    Those that are to go are replaced before they are gone: so there may be up to twice as many as
    `max_workers`, but never do more than that have jobs.

    Args:
        max_workers: how many may have jobs at once.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._limit: int | None = None  # if the machine has no more to give
        self._workers: dict[Worker, WorkerState] = {}
        self._next_worker = 1
        self.idle: dict[Worker, None] = {}
        """The last in is the first out: its caches are warm."""
        self.starting: dict[Worker, None] = {}
        """Those that start, and have a job already."""
        self.expected: dict[Worker, None] = {}
        """Those that start, and have none."""
        self.unreported: dict[Worker, None] = {}
        """Those with a job that may be short, in the order in which their jobs began."""
        self.spent: dict[Worker, None] = {}
        """Those without a job that get no more, and are to be ended."""
        self._busy: dict[Worker, None] = {}
        self._leaving: dict[Worker, None] = {}
        self._successors: dict[Worker, Worker] = {}
        """Who is being started in place of whom, who works on until then."""
        self._ready: dict[Worker, None] = {}
        self._indexes = (
            *(self.idle, self.starting, self.expected, self.unreported, self.spent),
            *(self._busy, self._ready),
        )

    def __getitem__(self, worker: Worker) -> WorkerState:
        return self._workers[worker]

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def has_room(self) -> bool:
        """Whether there may be another worker: for as many as go, up to `max_workers` more."""
        if self._limit is not None:
            return len(self._workers) < self._limit  # those that go are not gone yet
        going = len(self._leaving) + len(self._successors)
        return len(self._workers) - min(going, self._max_workers) < self._max_workers

    @property
    def may_run_more(self) -> bool:
        """Whether another worker may have a job."""
        return len(self._busy) < self._max_workers

    @property
    def busy(self) -> int:
        """How many have jobs, of those that are not to be killed."""
        return len(self._busy)

    @property
    def staying(self) -> int:
        """How many there are that are not to go."""
        return len(self._workers) - len(self._leaving)

    @property
    def ready(self) -> int:
        """How many of those have started."""
        return len(self._ready)

    @property
    def is_as_full_as_can_be(self) -> bool:
        """Whether the machine has no more workers to give."""
        return self._limit is not None and not self.has_room

    def add(self) -> Worker:
        """A new one, which starts."""
        worker = self._next_worker
        self._next_worker += 1
        self._workers[worker] = WorkerState()
        self.expected[worker] = None
        return worker

    def is_full(self) -> None:
        """No more can be had, until one has started: those that there are will do."""
        self._limit = len(self._workers)

    def started(self, worker: Worker, now: float) -> None:
        """It is ready, so more can be had."""
        self._limit = None
        state = self._workers[worker]
        state.is_ready = True
        self.starting.pop(worker, None)
        self.expected.pop(worker, None)
        if state.may_have_more:
            self._ready[worker] = None
        for predecessor, successor in list(self._successors.items()):
            if successor == worker:
                del self._successors[predecessor]
                self.expire(predecessor)
        self.begin(worker, now)

    def give(self, worker: Worker, job: Job, now: float) -> None:
        """It gets a job, behind those that it has."""
        state = self._workers[worker]
        state.jobs.append(job)
        self.expected.pop(worker, None)
        if not state.is_ready:
            self.starting[worker] = None
            self._busy[worker] = None
        elif len(state.jobs) == 1:
            self.begin(worker, now)

    def begin(self, worker: Worker, now: float) -> None:
        """Its first job is another one than before, or there is none."""
        state = self._workers[worker]
        self.unreported.pop(worker, None)
        self.idle.pop(worker, None)
        self.starting.pop(worker, None)
        state.is_report_due = False
        state.since = now
        if state.jobs and not state.is_retired:
            self._busy[worker] = None
            self.unreported[worker] = None
            return
        self._busy.pop(worker, None)
        if state.is_retired:
            return
        if not state.may_have_more:
            self.spent[worker] = None
        elif state.is_ready:
            self.idle[worker] = None
        else:
            self.expected[worker] = None

    def expire(self, worker: Worker) -> None:
        """It gets no more jobs, and goes when it has none."""
        state = self._workers[worker]
        if state.is_retired or state.is_expiring:
            return
        state.is_expiring = True
        self._may_be_replaced(worker)
        self.idle.pop(worker, None)
        self.expected.pop(worker, None)
        if not state.jobs:
            self.spent[worker] = None

    def has_last_job(self, worker: Worker) -> None:
        """Likewise, unless a job is taken back."""
        self._workers[worker].has_last_job = True
        self._may_be_replaced(worker)

    def may_go_on(self, worker: Worker) -> None:
        """A job was taken back: so another one may be its last."""
        state = self._workers[worker]
        state.has_last_job = False
        if state.may_have_more:
            self._leaving.pop(worker, None)
            if state.is_ready:
                self._ready[worker] = None

    def replace(self, worker: Worker) -> Worker | None:
        """Another one starts, and when it has started, this one is to expire.

        Returns:
            The other one; None if there is one already, or the worker goes anyway, or there are
            too many.
        """
        state = self._workers[worker]
        goes_anyway = not state.may_have_more or worker in self._successors
        is_full = self._limit is not None or len(self._workers) >= 2 * self._max_workers
        if goes_anyway or is_full:
            return None
        successor = self.add()
        self._successors[worker] = successor
        return successor

    def dismiss(self, worker: Worker) -> None:
        """It has no job, and ends in order."""
        self._may_be_replaced(worker)
        self._workers[worker].is_dismissed = True
        self.retire(worker)

    def retire(self, worker: Worker) -> None:
        """It gets no more jobs, and ends before long. One that has started is replaced at once."""
        state = self._workers[worker]
        if state.is_ready:
            self._may_be_replaced(worker)
        state.is_retired = True
        for index in self._indexes:
            index.pop(worker, None)

    def remove(self, worker: Worker) -> WorkerState:
        """It is dead. Returns its last state."""
        for index in (*self._indexes, self._leaving, self._successors):
            index.pop(worker, None)
        for predecessor, successor in list(self._successors.items()):
            if successor == worker:
                del self._successors[predecessor]
        return self._workers.pop(worker)

    def _may_be_replaced(self, worker: Worker) -> None:
        self._leaving[worker] = None
        self._ready.pop(worker, None)
        self._successors.pop(worker, None)
