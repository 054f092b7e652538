"""The link to one node: its actor, and what is under way to it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from compilepool.integrations.ray.cluster import Cluster, RayNode
from compilepool.integrations.ray.messages import Cancel, PackedJob
from compilepool.integrations.ray.node.actor import NodeActor

Listen = Callable[[Any, Callable[[Future[Any]], object]], None]
"""Has a function called, in the dispatcher's thread, when an object of Ray is there."""

_PINGS = 3


class NodeLink:
    """The actor of a node. Only the dispatcher's thread calls this, but for `call`.

    Args:
        cluster: the connection to Ray.
        node: the node.
        remote_args: further arguments of Ray for the actor.
        listen: see `Listen`.
        now: the time, by `time.monotonic()`.

    Attributes:
        node: the node.
        is_up: whether it takes jobs.
        workers: how many jobs it runs at once.
        since: the time at which the actor was asked for.
        heard_at: the time of the last report.
        offset_s: what to add to a time of the node's `time.monotonic()` for one of this process's.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: RayNode,
        remote_args: dict[str, Any],
        listen: Listen,
        now: float,
    ) -> None:
        cluster.check()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._cluster = cluster
        self._listen = listen
        self.node = node
        self.is_up = False
        self.workers = 0
        self.since = self.heard_at = now
        self.offset_s = 0.0
        self._shortest_s = math.inf
        self._pings = 0
        self._parcel: list[PackedJob | Cancel] = []
        self._parcels = 0
        place = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        options = {
            "num_cpus": 0,
            **remote_args,
            "scheduling_strategy": place,
            # Ray would start the actor again, and it would know nothing.
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._actor = cluster.ray.remote(NodeActor).options(**options).remote()

    def ask(self, handler: Callable[[Future[Any]], object], method: str, *arguments: Any) -> None:
        """Call a method of the actor. `handler` gets the answer, in the dispatcher's thread."""
        self._listen(self.call(method, *arguments), handler)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the actor. Any thread.

        Returns:
            Ray's reference to the answer.

        Raises:
            ConnectionError: this process's connection to Ray is gone.
        """
        self._cluster.check()
        return getattr(self._actor, method).remote(*arguments)

    def add(self, item: PackedJob | Cancel) -> None:
        """Put something into the next parcel."""
        self._parcel.append(item)

    def send(self, arrived: Callable[[list[int], Future[Any]], object]) -> None:
        """Send the parcel, if there is anything in it.

        Args:
            arrived: called with the jobs in it when it has arrived, or never will.
        """
        if not self._parcel:
            return
        parcel, self._parcel = self._parcel, []
        self._parcels += 1
        ids = [item.id for item in parcel if isinstance(item, PackedJob)]
        self.ask(lambda answer: arrived(ids, answer), "give", self._parcels, parcel)

    def note_clock(self, asked: float, theirs: float, heard: float) -> bool:
        """Compare the clocks: the faster an answer, the better it tells.

        Returns:
            Whether it is worth asking again.
        """
        self._pings += 1
        if heard - asked < self._shortest_s:
            self._shortest_s = heard - asked
            self.offset_s = (asked + heard) / 2 - theirs
        return self._pings < _PINGS

    def kill(self) -> None:
        """End the actor at once, and with it all processes below it."""
        self.is_up = False
        with contextlib.suppress(Exception):  # it, or Ray, is gone already
            self._cluster.check()
            self._cluster.ray.kill(self._actor, no_restart=True)
