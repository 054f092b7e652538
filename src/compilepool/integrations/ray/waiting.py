"""The jobs that wait for a node, in the order in which they go."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """A job's place among those that wait: the smaller goes first.

    Attributes:
        rank: its priority, negated.
        id: its number.
    """

    rank: int
    id: int


class Routed:
    """A job as the router knows it.

    Attributes:
        place: its place among those that wait.
        size: its bytes.
        memory: the bytes of memory that it will probably take; 0: unknown.
        key: its key; "": it has none.
        unit: what it needs a worker for, together with all jobs of the same flight.
        node: the node that has it; "": it waits.
        losses: how many nodes it has lost.
        is_on_its_way: whether it has been given away and has not arrived.
    """

    __slots__ = ("is_on_its_way", "key", "losses", "memory", "node", "place", "size", "unit")

    def __init__(self, place: Place, size: int, memory: float, key: str, flight: str) -> None:
        self.place = place
        self.size = size
        self.memory = memory
        self.key = key
        self.unit: str | int = flight or place.id
        self.node = ""
        self.losses = 0
        self.is_on_its_way = False


class Waiting:
    """Places of jobs, the first of them first. Places of jobs that have ended are passed over."""

    def __init__(self) -> None:
        self._heap: list[Place] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def push(self, place: Place) -> None:
        """A job waits."""
        heapq.heappush(self._heap, place)

    def first(self, jobs: Mapping[int, Routed]) -> Place | None:
        """The first job among `jobs` that waits; None if there is none."""
        while self._heap and self._heap[0].id not in jobs:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def pop(self) -> None:
        """The first job waits no more."""
        heapq.heappop(self._heap)

    def places(self) -> list[Place]:
        """All places, in no order."""
        return list(self._heap)
