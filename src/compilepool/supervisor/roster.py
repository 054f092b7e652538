"""The workers, and which of them can have a job: pure."""

from __future__ import annotations

from collections.abc import Iterator

from compilepool.supervisor.actions import Worker
from compilepool.supervisor.states import WorkerState


class Roster:
    """All workers of a pool.

    Args:
        max_workers: how many may exist at once, those that are leaving not counted.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._limit = max_workers
        self._workers: dict[Worker, WorkerState] = {}
        self._next_worker = 1
        self.idle: dict[Worker, None] = {}
        """The last in is the first out: its caches are warm."""
        self.starting: dict[Worker, None] = {}
        """Those that start, and have a job already."""
        self.unreported: dict[Worker, None] = {}
        """Those with a job that may be short, in the order in which their jobs began."""
        self._leaving: dict[Worker, None] = {}

    def __getitem__(self, worker: Worker) -> WorkerState:
        return self._workers[worker]

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def has_room(self) -> bool:
        """Whether there may be another worker: for as many as leave, up to `max_workers` more."""
        return len(self._workers) - min(len(self._leaving), self._max_workers) < self._limit

    def add(self) -> Worker:
        """A new one, which starts."""
        worker = self._next_worker
        self._next_worker += 1
        self._workers[worker] = WorkerState()
        return worker

    def is_full(self) -> None:
        """No more can be had: those that there are will do."""
        self._limit = len(self._workers)

    def started(self, worker: Worker, now: float) -> None:
        """It is ready, so more can be had."""
        self._limit = self._max_workers
        self._workers[worker].is_ready = True
        self.starting.pop(worker, None)
        self.begin(worker, now)

    def begin(self, worker: Worker, now: float) -> None:
        """Its first job is another one than before, or there is none."""
        state = self._workers[worker]
        self.unreported.pop(worker, None)
        self.idle.pop(worker, None)
        state.is_report_due = False
        state.since = now
        if state.is_retired:
            return
        if state.jobs:
            self.unreported[worker] = None
        else:
            self.idle[worker] = None

    def retire(self, worker: Worker) -> None:
        """It gets no more jobs, and dies before long. One that has started is replaced at once."""
        state = self._workers[worker]
        state.is_retired = True
        for index in (self.idle, self.starting, self.unreported):
            index.pop(worker, None)
        if state.is_ready:
            self._leaving[worker] = None

    def remove(self, worker: Worker) -> WorkerState:
        """It is dead. Returns its last state."""
        for index in (self.idle, self.starting, self.unreported, self._leaving):
            index.pop(worker, None)
        return self._workers.pop(worker)
