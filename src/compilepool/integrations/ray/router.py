"""Decides which node gets which job. Pure: no I/O, no clock, no Ray.

- A job goes to a node with a free worker: the one with the fewest jobs for each worker that also
  has the memory. Without a free worker anywhere it waits here, where any node may still get it.
- If jobs are so short that the way to a node takes longer than they do, nodes get some ahead.
- All jobs of a key go to the node that owns the key, so that its pool has one run for them and
  counts their crashes together. A node owns a key from the first job that it gets of it. The ring
  says which node that is, if it has a free worker, so that several programs tend to choose the same
  one. A busy node is passed over: the key waits for whichever node is free first.
- Jobs of one flight share a run, so they take one worker together.
- A job whose node is lost goes to another one, once. So do the keys of that node.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from typing import NamedTuple

from compilepool.integrations.ray.ring import Ring
from compilepool.integrations.ray.waiting import Place, Routed, Waiting

_HIDDEN_S = 0.02
"""The time that it may take to bring jobs to a node. Its workers have work for so long."""
_MOST_AHEAD = 32  # jobs for each worker
_WEIGHT = 0.1  # of the newest job in the mean duration
_LOOKED_AT = 8  # nodes among which one with enough memory is chosen
_WALKED = 16  # points of the ring
_MAX_OWNED = 1 << 16
"""So many keys without jobs stay with their nodes, which may have their results. The one that was
used least recently goes first."""


class Gift(NamedTuple):
    """A decision: this node gets this job."""

    node: str
    job: int


class Lost(NamedTuple):
    """What a lost node means for its jobs.

    Attributes:
        again: those that run elsewhere.
        ended: those that have lost too many nodes.
    """

    again: list[int]
    ended: list[int]


class _Node:
    __slots__ = ("jobs", "keys", "memory", "name", "stamp", "units", "waiting", "workers")

    def __init__(self, name: str, workers: int, memory: float) -> None:
        self.name = name
        self.workers = workers
        self.memory = memory
        self.jobs: dict[int, Routed] = {}
        self.units: dict[str | int, int] = {}
        self.waiting = Waiting()
        self.keys: set[str] = set()
        self.stamp = 0

    @property
    def load(self) -> int:
        """How many workers its jobs need."""
        return len(self.units)

    def add(self, job: Routed) -> None:
        self.jobs[job.place.id] = job
        self.units[job.unit] = self.units.get(job.unit, 0) + 1

    def remove(self, job: Routed) -> None:
        del self.jobs[job.place.id]
        self.units[job.unit] -= 1
        if not self.units[job.unit]:
            del self.units[job.unit]


class Router:
    """The jobs of one program, and the nodes that they go to.

    Args:
        runs_again: how often a job whose node is lost runs elsewhere.
        bound: how many bytes of jobs may be on their way at once. A larger job travels alone.

    Attributes:
        in_flight: the bytes that are on their way.
    """

    def __init__(self, *, runs_again: int = 1, bound: float = math.inf) -> None:
        self._runs_again = runs_again
        self._bound = bound
        self.in_flight = 0
        self._jobs: dict[int, Routed] = {}
        self._waiting = Waiting()
        self._nodes: dict[str, _Node] = {}
        self._ring = Ring()
        self._owners: dict[str, _Node] = {}
        self._unfinished: dict[str, int] = {}
        self._unused: OrderedDict[str, None] = OrderedDict()
        self._by_load: list[tuple[float, int, int, str]] = []
        """A heap of nodes that have room. Entries with an old stamp count for nothing."""
        self._turn = 0
        self._owing: set[str] = set()
        """Nodes for which jobs wait, because of their keys, and which may have room for them."""
        self._mean_s: float | None = None

    # What happens

    def join(self, name: str, workers: int, memory: float = math.inf) -> None:
        """A node can have jobs from now on.

        Args:
            name: the node's; no node of this name is there.
            workers: how many jobs it runs at once.
            memory: the bytes that its jobs may take.
        """
        self._nodes[name] = node = _Node(name, workers, memory)
        self._ring.add(name)
        self._changed(node)

    def leave(self, name: str) -> Lost:
        """A node is lost. Its jobs are queued again, at their old places."""
        node = self._nodes.pop(name)
        self._ring.remove(name)
        self._owing.discard(name)
        for key in node.keys:
            del self._owners[key]
            self._unused.pop(key, None)
        for place in node.waiting.places():
            self._waiting.push(place)
        lost = Lost([], [])
        for id, job in node.jobs.items():
            job.node = ""
            self._landed(job)
            job.losses += 1
            if job.losses > self._runs_again:
                lost.ended.append(id)
                self.ended(id)
            else:
                lost.again.append(id)
                self._waiting.push(job.place)
        return lost

    def submit(
        self,
        id: int,
        *,
        size: int = 0,
        memory: float = 0,
        priority: int = 0,
        key: str = "",
        flight: str = "",
    ) -> None:
        """A job is there.

        Args:
            id: the job's number, larger than that of any job before.
            size: its bytes.
            memory: the bytes of memory that it will probably take; 0: unknown.
            priority: a higher one goes earlier.
            key: jobs with the same key go to the same node; "": it has none.
            flight: jobs with the same flight, and so the same key, share a run; "": it has its own.
        """
        self._jobs[id] = Routed(Place(-priority, id), size, memory, key, flight)
        if key:
            self._unfinished[key] = self._unfinished.get(key, 0) + 1
            self._unused.pop(key, None)
        self._waiting.push(Place(-priority, id))

    def arrived(self, id: int) -> None:
        """A job has reached its node, so its bytes are not on their way any more."""
        if (job := self._jobs.get(id)) is not None:
            self._landed(job)

    def ended(self, id: int, seconds: float | None = None) -> str:
        """A job has ended, in whatever way. Returns the node that had it; "" if none had.

        Args:
            id: the job's. One that has ended is ignored.
            seconds: how long it ran; None: it did not, or not to its end.
        """
        job = self._jobs.pop(id, None)
        if job is None:
            return ""
        if seconds is not None:
            mean = seconds if self._mean_s is None else self._mean_s
            self._mean_s = mean + _WEIGHT * (seconds - mean)
        self._landed(job)
        if job.key:
            self._forget_use(job.key)
        if (node := self._nodes.get(job.node)) is not None:
            node.remove(job)
            self._changed(node)
        return job.node

    def told_memory(self, name: str, memory: float) -> None:
        """A node says how much memory its jobs may still take, in bytes."""
        if (node := self._nodes.get(name)) is not None:
            node.memory = memory

    # What to do

    def next_gifts(self) -> list[Gift]:
        """What nodes get now. The caller brings it to them."""
        gifts: list[Gift] = []
        while (gift := self._next_gift()) is not None:
            gifts.append(gift)
        return gifts

    @property
    def waiting(self) -> int:
        """How many jobs no node has."""
        return len(self._jobs) - sum(len(node.jobs) for node in self._nodes.values())

    @property
    def workers(self) -> int:
        """How many workers all nodes have."""
        return sum(node.workers for node in self._nodes.values())

    @property
    def ahead(self) -> int:
        """How many jobs a node gets for each worker beyond the one that this runs."""
        if self._mean_s is None:
            return 0
        return min(_MOST_AHEAD, int(_HIDDEN_S / max(self._mean_s, 1e-6)))

    def node_of(self, id: int) -> str:
        """The node that has a job; "" if none has."""
        job = self._jobs.get(id)
        return "" if job is None else job.node

    def jobs_of(self, name: str) -> list[int]:
        """The jobs that a node has."""
        node = self._nodes.get(name)
        return [] if node is None else list(node.jobs)

    def owner_of(self, key: str) -> str | None:
        """The node that owns a key; None if none does."""
        node = self._owners.get(key)
        return None if node is None else node.name

    # How

    def _next_gift(self) -> Gift | None:
        first = self._first_for_anyone()
        for name in list(self._owing):
            node = self._nodes[name]
            place = node.waiting.first(self._jobs)
            if place is None or not self._takes(node, self._jobs[place.id]):
                self._owing.discard(name)
            elif first is None or place < first:
                return self._give(node, self._jobs[place.id], node.waiting)
        if first is None:
            return None
        job = self._jobs[first.id]
        chosen = self._owners.get(job.key) or self._choose(job)
        return None if chosen is None else self._give(chosen, job, self._waiting)

    def _first_for_anyone(self) -> Place | None:
        """The first job that may go to any node, or whose owner has room."""
        while (place := self._waiting.first(self._jobs)) is not None:
            job = self._jobs[place.id]
            owner = self._owners.get(job.key)
            if owner is None or self._takes(owner, job):
                return place
            self._waiting.pop()
            owner.waiting.push(place)
        return None

    def _give(self, node: _Node, job: Routed, waiting: Waiting) -> Gift | None:
        if self.in_flight and self.in_flight + job.size > self._bound:
            return None  # no smaller job may overtake it for ever
        waiting.pop()
        job.node = node.name
        job.is_on_its_way = True
        self.in_flight += job.size
        node.add(job)
        node.memory -= job.memory
        if job.key and job.key not in self._owners:
            self._owners[job.key] = node
            node.keys.add(job.key)
        self._changed(node)
        return Gift(node.name, job.place.id)

    def _choose(self, job: Routed) -> _Node | None:
        """The node for a job that may go anywhere; None if all are full."""
        if job.key:
            for name in self._ring.walk(job.key, _WALKED):
                node = self._nodes[name]
                if node.load < node.workers and node.memory >= job.memory:
                    return node
        looked_at: list[tuple[float, int, int, str]] = []
        chosen: _Node | None = None
        while self._by_load and len(looked_at) < _LOOKED_AT:
            entry = heapq.heappop(self._by_load)
            known = self._nodes.get(entry[3])
            if known is None or known.stamp != entry[2] or not self._has_room(known):
                continue
            looked_at.append(entry)
            if chosen is None or known.memory > chosen.memory:
                chosen = known
            if known.memory >= job.memory:
                chosen = known
                break
        for entry in looked_at:
            heapq.heappush(self._by_load, entry)
        return chosen

    def _has_room(self, node: _Node) -> bool:
        return node.load < node.workers * (1 + self.ahead)

    def _takes(self, node: _Node, job: Routed) -> bool:
        """Whether a node has room for a job, or runs already what the job asks for."""
        return job.unit in node.units or self._has_room(node)

    def _changed(self, node: _Node) -> None:
        """Enter a node anew among those that have room."""
        node.stamp += 1
        if node.waiting:
            self._owing.add(node.name)
        if not self._has_room(node):
            return
        self._turn += 1
        load = node.load / node.workers
        heapq.heappush(self._by_load, (load, self._turn, node.stamp, node.name))
        if len(self._by_load) > 64 + 4 * len(self._nodes):
            self._by_load = [
                entry
                for entry in self._by_load
                if (known := self._nodes.get(entry[3])) is not None and known.stamp == entry[2]
            ]
            heapq.heapify(self._by_load)

    def _landed(self, job: Routed) -> None:
        if job.is_on_its_way:
            job.is_on_its_way = False
            self.in_flight -= job.size

    def _forget_use(self, key: str) -> None:
        self._unfinished[key] -= 1
        if self._unfinished[key]:
            return
        del self._unfinished[key]
        if key in self._owners:
            self._unused[key] = None
            if len(self._unused) > _MAX_OWNED:
                oldest, _ = self._unused.popitem(last=False)
                self._owners.pop(oldest).keys.discard(oldest)
