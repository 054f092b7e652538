"""The runs that have not ended: those that wait, in their order, and those that workers have."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    FailRun,
    Reason,
    ReportCancelled,
    RunId,
    WorkerId,
)
from compilepool.supervisor.rules.memory import Claims
from compilepool.supervisor.rules.workers import Worker


class ScheduledRun:
    """A run that has not ended, as the scheduler knows it.

    Attributes:
        may_go_ahead: whether it may wait in a busy worker's socket.
        priority: the runs with a higher one go first.
        retries: how often it may still run again if its worker is lost through no fault of its own.
        reruns: how often it was lost with its fork server, and ran again.
        is_cancelled: whether nobody wants it any more.
        worker: the worker that has it; None while it waits.
    """

    __slots__ = (
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
        self.is_cancelled = False
        self.worker: WorkerId | None = None


class ScheduledRuns(Generic[Reason]):
    """The unfinished runs of one pool.

    Args:
        expected_memory: tells how many bytes of memory a run will probably take.
        reports: gets a report of each run that ends without a result of its own.
    """

    def __init__(
        self, expected_memory: Callable[[RunId], int], reports: list[Action[Reason]]
    ) -> None:
        self._reports = reports
        self._runs: dict[RunId, ScheduledRun] = {}
        self._queue = Queue()
        self._claims = Claims(expected_memory)

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, id: RunId) -> ScheduledRun:
        return self._runs[id]

    def get(self, id: RunId) -> ScheduledRun | None:
        """The run; None if it has ended."""
        return self._runs.get(id)

    @property
    def some_wait(self) -> bool:
        """Whether there are runs that no worker has."""
        return bool(self._queue)

    @property
    def first_lacks_memory(self) -> bool:
        """Whether there is a first run in the queue, and not enough memory for it."""
        return bool(self._queue) and not self._claims.admit(self._queue.first())

    def add(self, id: RunId, run: ScheduledRun) -> None:
        """Put a new run into the queue."""
        self._runs[id] = run
        self._queue.put(id, run.priority)

    def take_first(self, worker: WorkerId, *, to_go_ahead: bool = False) -> RunId | None:
        """Take the first run from the queue, for a worker.

        Args:
            worker: the worker.
            to_go_ahead: whether the run is to wait in the worker's socket.

        Returns:
            None if the queue is empty, if the first run may not go ahead, or if there is not enough
            memory for it. Those behind it wait with it: it might never start otherwise.
        """
        if not self._queue:
            return None
        id = self._queue.first()
        run = self._runs[id]
        if (to_go_ahead and not run.may_go_ahead) or not self._claims.claim(id):
            return None
        self._queue.take()
        run.worker = worker
        return id

    def put_first(self, id: RunId) -> None:
        """Put a run first in the queue again. No worker has it any more."""
        run = self._runs[id]
        run.worker = None
        self._claims.drop(id)
        self._queue.put_first(id, run.priority)

    def put_back(self, worker: Worker, ids: Sequence[RunId]) -> None:
        """Take runs from a worker that has not begun them. They are next, unless cancelled."""
        for id in reversed(ids):
            worker.runs.remove(id)
            if self._runs[id].is_cancelled:
                self._end_cancelled(id)
            else:
                self.put_first(id)

    def end(self, id: RunId) -> None:
        """Forget a run, which has ended and is not in the queue."""
        self._claims.drop(id)
        del self._runs[id]

    def fail(self, id: RunId, reason: Reason) -> None:
        """End a run that has no outcome of its own and is not in the queue."""
        if self._runs[id].is_cancelled:
            self._end_cancelled(id)
        else:
            self.end(id)
            self._reports.append(FailRun(id, reason))

    def fail_waiting(self, reason: Reason) -> None:
        """Fail every run that no worker has."""
        for id in self._queue.take_all():
            self.fail(id, reason)

    def cancel_waiting(self, id: RunId) -> None:
        """End a run that no worker has, and that nobody wants any more."""
        self._queue.remove(id, self._runs[id].priority)
        self._end_cancelled(id)

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """There is so much memory; see `Claims.memory_seen`."""
        self._claims.memory_seen(free, used)

    def _end_cancelled(self, id: RunId) -> None:
        self.end(id)
        self._reports.append(ReportCancelled(id))


class Queue:
    """ScheduledRuns in the order in which they are to start.

    Those of a higher priority come first; among those of the same, who came first.
    """

    def __init__(self) -> None:
        self._ranks: list[int] = []  # negated priorities of which there are runs, ascending
        self._runs: dict[int, OrderedDict[RunId, None]] = {}  # by rank

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def put(self, id: RunId, priority: int) -> None:
        """Put a run behind all others of its priority."""
        runs = self._runs.get(-priority)
        if runs is None:
            runs = self._of_rank(-priority)
        runs[id] = None

    def put_first(self, id: RunId, priority: int) -> None:
        """Put a run before all others of its priority."""
        runs = self._of_rank(-priority)
        runs[id] = None
        runs.move_to_end(id, last=False)

    def first(self) -> RunId:
        """The run that is first. Raises IndexError if there is none."""
        return next(iter(self._runs[self._ranks[0]]))

    def take(self) -> RunId:
        """Take the first run out. Raises IndexError if there is none."""
        rank = self._ranks[0]
        runs = self._runs[rank]
        id, _ = runs.popitem(last=False)
        if not runs:
            self._drop_if_empty(rank)
        return id

    def remove(self, id: RunId, priority: int) -> None:
        """Take a certain run out. Raises KeyError if it is not there."""
        del self._runs[-priority][id]
        self._drop_if_empty(-priority)

    def take_all(self) -> list[RunId]:
        """Take all runs out, in their order."""
        ids = [id for rank in self._ranks for id in self._runs[rank]]
        self._ranks, self._runs = [], {}
        return ids

    def _of_rank(self, rank: int) -> OrderedDict[RunId, None]:
        if rank not in self._runs:
            self._runs[rank] = OrderedDict()
            bisect.insort(self._ranks, rank)
        return self._runs[rank]

    def _drop_if_empty(self, rank: int) -> None:
        if not self._runs[rank]:
            del self._runs[rank]
            self._ranks.remove(rank)
