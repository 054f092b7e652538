"""The unfinished runs: the queue of those that wait, and those that workers have."""

from __future__ import annotations

import bisect
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
from compilepool.supervisor.rules.turns import Turns
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
        clients: the numbers of the clients that have submitted it, the first one first.
    """

    __slots__ = (
        "clients",
        "is_cancelled",
        "may_go_ahead",
        "priority",
        "reruns",
        "retries",
        "worker",
    )

    def __init__(
        self, may_go_ahead: bool, priority: int = 0, retries: int = 0, client: int = 0
    ) -> None:
        self.may_go_ahead = may_go_ahead
        self.priority = priority
        self.retries = retries
        self.reruns = 0
        self.is_cancelled = False
        self.worker: WorkerId | None = None
        self.clients: tuple[int, ...] = (client,)


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
        """Add a new run, behind those of its client and its priority."""
        self._runs[id] = run
        self._queue.put(id, run.priority, run.clients[0])

    def join(self, id: RunId, client: int, priority: int) -> None:
        """Another job wants a run.

        Args:
            id: the run's id.
            client: the number of the job's client, whose turn may start the run, too.
            priority: the job's priority. The run gets it if it is higher than the run's.
        """
        run = self._runs[id]
        wanting = run.clients if client in run.clients else (*run.clients, client)
        if run.worker is None:
            if priority > run.priority:
                self._queue.remove(id, run.priority, run.clients)
                for each in wanting:
                    self._queue.put(id, priority, each)
            elif wanting is not run.clients:
                self._queue.put(id, run.priority, client)
        run.clients = wanting
        run.priority = max(run.priority, priority)

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
        if len(run.clients) > 1:
            self._queue.remove(id, run.priority, run.clients)
        run.worker = worker
        return id

    def put_first(self, id: RunId) -> None:
        """Put a run that no worker has any more back to the front of the queue."""
        run = self._runs[id]
        run.worker = None
        self._claims.drop(id)
        self._queue.put_first(id, run.priority, run.clients[0])

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
        while self._queue:
            id = self._queue.take()
            run = self._runs[id]
            self._queue.remove(id, run.priority, run.clients)
            self.fail(id, reason)

    def cancel_waiting(self, id: RunId) -> None:
        """End a run that no worker has and that nobody wants any more."""
        run = self._runs[id]
        self._queue.remove(id, run.priority, run.clients)
        self._end_cancelled(id)

    def memory_seen(self, free: int, used: Mapping[RunId, int]) -> None:
        """Note a measurement of memory, see `Claims.memory_seen`."""
        self._claims.memory_seen(free, used)

    def _end_cancelled(self, id: RunId) -> None:
        self.end(id)
        self._reports.append(ForgetRun(id))


class Queue:
    """The ids of waiting runs, in the order in which they start.

    A run with a higher priority comes first. Among runs of the same priority, clients take turns,
    and those of one client keep their order.
    """

    def __init__(self) -> None:
        self._ranks: list[int] = []  # negated priorities that some run has, ascending
        self._turns: dict[int, Turns] = {0: Turns()}
        """The runs by rank. Those of the default priority stay when they are empty."""

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def put(self, id: RunId, priority: int, client: int) -> None:
        """Add a run behind all others of its client and its priority.

        A run that is in the queue for another client is in it for both then.
        """
        if -priority not in self._ranks:
            self._begin(-priority)
        self._turns[-priority].put(id, client)

    def put_first(self, id: RunId, priority: int, client: int) -> None:
        """Add a run before all others of its priority."""
        if -priority not in self._ranks:
            self._begin(-priority)
        self._turns[-priority].put_first(id, client)

    def first(self) -> RunId:
        """The first run. Raises IndexError if there is none."""
        return self._turns[self._ranks[0]].first()

    def take(self) -> RunId:
        """Remove and return the first run. Raises IndexError if there is none.

        If several clients want it, the caller also calls `remove`.
        """
        rank = self._ranks[0]
        turns = self._turns[rank]
        id = turns.take()
        if not turns:
            self._end(rank)
        return id

    def remove(self, id: RunId, priority: int, clients: Sequence[int]) -> None:
        """Remove a run, which some of these clients want, if it is in the queue."""
        if -priority not in self._ranks:
            return
        turns = self._turns[-priority]
        for client in clients:
            turns.remove(id, client)
        if not turns:
            self._end(-priority)

    def _begin(self, rank: int) -> None:
        bisect.insort(self._ranks, rank)
        if rank not in self._turns:
            self._turns[rank] = Turns()

    def _end(self, rank: int) -> None:
        self._ranks.remove(rank)
        if rank:
            del self._turns[rank]
