"""The unfinished runs: the queue of those that wait, and those that workers have."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from compilepool.light_typing import Generic
from compilepool.supervisor.rules.actions import (
    Action,
    FailRun,
    ForgetRun,
    Reason,
    RunId,
    WorkerId,
)
from compilepool.supervisor.rules.memory import Claims
from compilepool.supervisor.rules.workers import Worker

MAX_RERUNS = 1
"""The number of times that a run may run again after it was lost with its fork server."""


class ScheduledRun:
    """What the scheduler knows about a run that has not ended.

    Attributes:
        may_go_ahead: whether the run may wait in a busy worker's socket.
        priority: the priority; runs with a higher one start first.
        retries: how often the run may still run again after its worker died through no fault of it.
        reruns: how often the run was lost with its fork server and then ran again.
        is_cancelled: whether nobody wants the run any more.
        worker: the worker that has the run; None while it waits.
    """

    __slots__ = ("is_cancelled", "may_go_ahead", "priority", "reruns", "retries", "worker")

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
        expected_memory: returns the bytes of memory that a run will probably take.
        reports: the list to which an action is added for each run that ends without a result.
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
        """Whether some runs have no worker."""
        return bool(self._queue)

    @property
    def first_lacks_memory(self) -> bool:
        """Whether runs wait, and there is not enough memory for the first one."""
        return bool(self._queue) and not self._claims.admit(self._queue.first())

    def add(self, id: RunId, run: ScheduledRun) -> None:
        """Add a new run, at the end of the queue for its priority."""
        self._runs[id] = run
        self._queue.put(id, run.priority)

    def take_first(self, worker: WorkerId, *, to_go_ahead: bool = False) -> RunId | None:
        """Take the first run from the queue, for a worker.

        Args:
            worker: the worker.
            to_go_ahead: whether the run would wait in the worker's socket.

        Returns:
            None if the queue is empty, if the first run may not go ahead, or if there is not enough
            memory for it. The runs behind it then wait, too: otherwise it might never start.
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
        """Put a run that no worker has any more back to the front of the queue."""
        run = self._runs[id]
        run.worker = None
        self._claims.drop(id)
        self._queue.put_first(id, run.priority)

    def put_back(self, worker: Worker, ids: Sequence[RunId]) -> None:
        """Take runs from a worker that has not begun them. They return to the front of the queue.

        Cancelled runs end instead.
        """
        for id in reversed(ids):
            worker.runs.remove(id)
            if self._runs[id].is_cancelled:
                self._end_cancelled(id)
            else:
                self.put_first(id)

    def end(self, id: RunId) -> None:
        """Remove a run, which has ended and is not in the queue."""
        self._claims.drop(id)
        del self._runs[id]

    def fail(self, id: RunId, reason: Reason) -> None:
        """End a run, which is not in the queue, without a result."""
        if self._runs[id].is_cancelled:
            self._end_cancelled(id)
        else:
            self.end(id)
            self._reports.append(FailRun(id, reason))

    def retry_or_fail(self, id: RunId, reason: Reason) -> None:
        """Put a run, whose worker died through no fault of it, first in the queue again.

        If it is cancelled or has no retries left, it ends without a result.
        """
        run = self._runs[id]
        if run.retries and not run.is_cancelled:
            run.retries -= 1
            self.put_first(id)
        else:
            self.fail(id, reason)

    def rerun_or_fail(self, id: RunId, reason: Reason) -> None:
        """Put a run, which was lost with its fork server, first in the queue again.

        If it is cancelled or was rerun `MAX_RERUNS` times, it ends without a result.
        """
        run = self._runs[id]
        if run.reruns < MAX_RERUNS and not run.is_cancelled:
            run.reruns += 1
            self.put_first(id)
        else:
            self.fail(id, reason)

    def fail_waiting(self, reason: Reason) -> None:
        """End every run that no worker has, without a result."""
        for id in self._queue.take_all():
            self.fail(id, reason)

    def cancel_waiting(self, id: RunId) -> None:
        """End a run that no worker has and that nobody wants any more."""
        self._queue.remove(id, self._runs[id].priority)
        self._end_cancelled(id)

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """Note a measurement of memory, see `Claims.memory_seen`."""
        self._claims.memory_seen(free, used)

    def _end_cancelled(self, id: RunId) -> None:
        self.end(id)
        self._reports.append(ForgetRun(id))


class Queue:
    """The ids of waiting runs, in the order in which they start.

    A run with a higher priority comes first. Runs of the same priority keep their order.
    """

    def __init__(self) -> None:
        self._ranks: list[int] = []  # negated priorities that some run has, ascending
        self._runs: dict[int, OrderedDict[RunId, None]] = {}  # by rank

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def put(self, id: RunId, priority: int) -> None:
        """Add a run behind all others of its priority."""
        runs = self._runs.get(-priority)
        if runs is None:
            runs = self._of_rank(-priority)
        runs[id] = None

    def put_first(self, id: RunId, priority: int) -> None:
        """Add a run before all others of its priority."""
        runs = self._of_rank(-priority)
        runs[id] = None
        runs.move_to_end(id, last=False)

    def first(self) -> RunId:
        """The first run. Raises IndexError if there is none."""
        return next(iter(self._runs[self._ranks[0]]))

    def take(self) -> RunId:
        """Remove and return the first run. Raises IndexError if there is none."""
        rank = self._ranks[0]
        runs = self._runs[rank]
        id, _ = runs.popitem(last=False)
        if not runs:
            self._drop_if_empty(rank)
        return id

    def remove(self, id: RunId, priority: int) -> None:
        """Remove a run. Raises KeyError if it is not in the queue."""
        del self._runs[-priority][id]
        self._drop_if_empty(-priority)

    def take_all(self) -> list[RunId]:
        """Remove and return all runs, in order."""
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
