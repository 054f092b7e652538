"""The workers of a pool, and which of them can get a run."""

from __future__ import annotations

from collections.abc import Iterator

from compilepool.light_typing import TypeAlias
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.rules.states import (
    CRASHED_STARTING,
    READY,
    STARTING,
    TEARING_DOWN,
    Event,
    State,
    after,
)

Group: TypeAlias = dict[WorkerId, None]
"""Workers, in the order in which they joined the group."""


class Worker:
    """A worker that lives, or is being started.

    Attributes:
        state: the state. Only `Workers` changes it.
        runs: the unfinished runs that the worker has, in the order sent.
        served: the number of runs that have ended in the worker.
        since: the time at which the first run became the first, or at which the worker became idle.
        may_hold_unread: whether its socket may hold runs that nobody has tried to take back.
        is_report_due: whether its first run is to be reported once unread runs are taken back.
    """

    __slots__ = ("_group", "is_report_due", "may_hold_unread", "runs", "served", "since", "state")

    def __init__(self, group: Group) -> None:
        self.state: State = STARTING
        self.runs: list[RunId] = []
        self.served = 0
        self.since = 0.0
        self.may_hold_unread = False
        self.is_report_due = False
        self._group = group

    @property
    def activity(self) -> str:
        """What the worker is doing: "starting", "idle", "busy" or "leaving"."""
        if self.state.is_leaving:
            return "leaving"
        if not self.state.has_started:
            return "starting"
        return "busy" if self.runs else "idle"

    @property
    def has_failed_to_start(self) -> bool:
        """Whether the worker's death in this state is a failure to start."""
        state = self.state
        return not state.has_started and (not state.is_leaving or state is CRASHED_STARTING)


class Workers:
    """All workers of a pool. Each is in one group, which follows from its state and its runs.

    Two limits hold at the same time. At most `max_workers` workers may be *running*: have runs, and
    not be about to end. And at most `max_workers` may be *staying*: have a place. A worker that is
    about to go gives up its place, so that its successor can start before it is gone. So there may
    be up to twice as many workers as `max_workers`.

    Args:
        max_workers: the number of workers that may have runs at once.

    Attributes:
        expected: the starting workers without a run.
        loaded: the starting workers with a run.
        idle: the ready workers without a run. The one that became idle last gets the next run,
            because its caches are warm.
        busy: the started workers with runs.
        tearing_down: the workers that are TEARING_DOWN, the one first that has been so for longest.
        spent: the workers that have no run and get none any more. They are to be dismissed.
        leaving: the workers that are about to end.
        unreported: the busy workers whose first run may still turn out to be short, in the order in
            which these runs became the first.
    """

    def __init__(self, max_workers: int) -> None:
        self._max_workers = max_workers
        self._limit: int | None = None
        """The number of workers that the machine allows; None if unknown."""
        self._workers: dict[WorkerId, Worker] = {}
        self._last_id = 0
        self._successors: dict[WorkerId, WorkerId] = {}
        """The successor of each worker that works on until its successor has started."""
        self._placeless = 0
        """The number of workers that do not count against `max_workers`."""
        self._ready = 0
        self.expected: Group = {}
        self.loaded: Group = {}
        self.idle: Group = {}
        self.busy: Group = {}
        self.tearing_down: Group = {}
        self.spent: Group = {}
        self.leaving: Group = {}
        self.unreported: Group = {}

    def __getitem__(self, id: WorkerId) -> Worker:
        return self._workers[id]

    def __iter__(self) -> Iterator[WorkerId]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def has_room(self) -> bool:
        """Whether another worker may start. Up to `max_workers` workers that go do not count."""
        if self._limit is not None:
            return len(self._workers) < self._limit  # workers that go still take resources
        going = self._placeless + len(self._successors)
        return len(self._workers) - min(going, self._max_workers) < self._max_workers

    @property
    def may_run_more(self) -> bool:
        """Whether one more worker may have a run."""
        return self.running < self._max_workers

    @property
    def can_take_run(self) -> bool:
        """Whether some worker without a run, or a new worker, may have a run."""
        return bool(self.idle or self.expected or self.has_room) and self.may_run_more

    @property
    def running(self) -> int:
        """The number of workers that have runs and are not about to end."""
        return len(self.busy) + len(self.loaded)

    @property
    def staying(self) -> int:
        """The number of workers that count against `max_workers`."""
        return len(self._workers) - self._placeless

    @property
    def ready(self) -> int:
        """The number of workers that are READY, or will be once they have torn down."""
        return self._ready

    @property
    def is_at_limit(self) -> bool:
        """Whether the machine allows no more workers."""
        return self._limit is not None and not self.has_room

    @property
    def next_id(self) -> WorkerId:
        """The id of the next worker that `add` adds."""
        return self._last_id + 1

    def first_runs(self) -> dict[WorkerId, RunId]:
        """The first run of each worker that has one."""
        return {id: worker.runs[0] for id, worker in self._workers.items() if worker.runs}

    def add(self) -> WorkerId:
        """Add a starting worker. Returns its id."""
        id = self._last_id = self.next_id
        self._workers[id] = Worker(self.expected)
        self.expected[id] = None
        return id

    def remove(self, id: WorkerId) -> Worker:
        """Remove a worker, which is dead. Returns it in its last state."""
        worker = self._workers.pop(id)
        del worker._group[id]
        self.unreported.pop(id, None)
        self._count(worker.state, -1)
        self._successors.pop(id, None)
        self._forget_successor(id)
        return worker

    def raise_limit(self, max_workers: int) -> None:
        """Allow up to `max_workers` workers, if that is more than before."""
        self._max_workers = max(self._max_workers, max_workers)

    def note_full(self) -> None:
        """Note that the machine allows no more workers. The next worker that starts lifts this."""
        self._limit = len(self._workers)

    # Events

    def said_ready(self, id: WorkerId, now: float) -> None:
        """The worker has started. The machine may now allow more workers."""
        self._limit = None
        self._change(id, Event.SAID_READY)
        predecessor = self._forget_successor(id)
        if predecessor is not None:
            self.replace(predecessor)
        self.restart_clock(id, now)

    def give(self, id: WorkerId, run: RunId, now: float) -> None:
        """The worker gets a run, behind the runs that it has."""
        worker = self._workers[id]
        worker.runs.append(run)
        worker.may_hold_unread = True
        if len(worker.runs) == 1:
            if worker.state.has_started:
                self.restart_clock(id, now)
            else:
                self._regroup(id, worker)

    def got_last_run(self, id: WorkerId) -> None:
        """The worker gets no more runs, unless it gives one back."""
        self._change(id, Event.GOT_LAST_RUN)

    def gave_back(self, id: WorkerId) -> None:
        """Runs were taken back from the worker, so its last run may still be to come."""
        self._change(id, Event.GAVE_BACK_RUN)

    def tears_down(self, id: WorkerId, now: float) -> None:
        """The worker, which has no run, turns out to tear down for long what its last run left."""
        self._workers[id].since = now
        self._change(id, Event.TEARS_DOWN)

    def has_torn_down(self, id: WorkerId, now: float) -> None:
        """The worker has torn down what its last run left. Returns at once if it was not long."""
        if self._workers[id].state is TEARING_DOWN:
            self._workers[id].since = now
            self._change(id, Event.HAS_TORN_DOWN)

    def replace(self, id: WorkerId) -> None:
        """The worker gets no more runs, and goes when it has none left."""
        self._successors.pop(id, None)
        self._change(id, Event.REPLACED)

    def dismiss(self, id: WorkerId) -> None:
        """The worker, which has no run, is told to exit."""
        self._leave(id, Event.DISMISSED)

    def crashed(self, id: WorkerId) -> None:
        """The worker has crashed, and ends after its inspection."""
        self._leave(id, Event.CRASHED)

    def condemn(self, id: WorkerId) -> None:
        """The worker is about to be killed, because its run must end."""
        self._leave(id, Event.CONDEMNED)

    def restart_clock(self, id: WorkerId, now: float) -> None:
        """The worker has another first run than before, or none any more."""
        worker = self._workers[id]
        worker.since = now
        worker.is_report_due = False
        self.unreported.pop(id, None)
        if not (worker.runs and worker._group is self.busy):
            self._regroup(id, worker)
        if worker._group is self.busy:
            self.unreported[id] = None

    def start_successor(self, id: WorkerId) -> WorkerId | None:
        """Add a worker that replaces this one when it has started.

        Returns:
            The successor; None if there is one already, if this worker goes anyway, or if there is
            no room.
        """
        goes_anyway = not self._workers[id].state.gets_runs or id in self._successors
        is_full = self._limit is not None or len(self._workers) >= 2 * self._max_workers
        if goes_anyway or is_full:
            return None
        self._successors[id] = successor = self.add()
        return successor

    # Bookkeeping

    def _leave(self, id: WorkerId, event: Event) -> None:
        self.unreported.pop(id, None)
        self._workers[id].is_report_due = False
        self._change(id, event)

    def _change(self, id: WorkerId, event: Event) -> None:
        worker = self._workers[id]
        self._count(worker.state, -1)
        worker.state = after(worker.state, event)
        self._count(worker.state, 1)
        if not worker.state.keeps_place:
            self._successors.pop(id, None)
        if worker._group is not self._group_of(worker):
            self._regroup(id, worker)

    def _count(self, state: State, change: int) -> None:
        self._ready += change * (state is READY or state is TEARING_DOWN)
        self._placeless += change * (not state.keeps_place)

    def _regroup(self, id: WorkerId, worker: Worker) -> None:
        """Move the worker to the end of the group that it belongs to."""
        del worker._group[id]
        worker._group = self._group_of(worker)
        worker._group[id] = None

    def _group_of(self, worker: Worker) -> Group:
        state = worker.state
        if state.is_leaving:
            return self.leaving
        if state is TEARING_DOWN:
            return self.tearing_down
        if worker.runs:
            return self.busy if state.has_started else self.loaded
        if not state.gets_runs:
            return self.spent
        return self.idle if state.has_started else self.expected

    def _forget_successor(self, successor: WorkerId) -> WorkerId | None:
        """Forget a successor. Returns its predecessor; None if it has none."""
        for predecessor, each in self._successors.items():
            if each == successor:
                del self._successors[predecessor]
                return predecessor
        return None
