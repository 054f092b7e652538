"""Which nodes there are, which of them are of use, and when a node is tried again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from compilepool.client.options import PoolOptions
from compilepool.errors import NoNode
from compilepool.integrations.ray.cluster import Cluster, RayNode
from compilepool.integrations.ray.link import Listen, NodeLink
from compilepool.integrations.ray.messages import Packed
from compilepool.integrations.ray.sameness import differences, facts
from compilepool.observe.quiet_logger import QuietLogger

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_ENOUGH = 3
"""After so many attempts in a row, nobody waits for a node."""
_PATIENCE_S = 30.0
"""How long jobs wait for a first node, and a node for its actor before that is told."""

_log = QuietLogger(__name__)


class _Known:
    def __init__(self, node: RayNode) -> None:
        self.node = node
        self.attempts = 0
        self.due_at = 0.0
        self.reason = ""
        self.is_unfit = False
        self.is_late = False


class Roster:
    """See the module.

    Args:
        cluster: the connection to Ray.
        options: the pool's, as its nodes get them.
        startup: what every worker starts with.
        remote_args: further arguments of Ray for the actors.
        now: the time, by `time.monotonic()`.
    """

    def __init__(
        self,
        cluster: Cluster,
        options: PoolOptions,
        startup: Packed | None,
        remote_args: Mapping[str, Any],
        now: float,
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._startup = startup
        self._remote_args = dict(remote_args)
        self._facts = facts()
        self._known: dict[str, _Known] = {}
        self._alone_since: float = now
        self.is_settled = False
        """Whether the nodes are known."""

    def see(self, nodes: Sequence[RayNode]) -> None:
        """These nodes are there now."""
        self.is_settled = True
        self._known = {node.id: self._known.get(node.id) or _Known(node) for node in nodes}

    def due(self, linked: Collection[str], now: float) -> list[RayNode]:
        """The nodes without a link that are to get one now."""
        if self._known:
            self._alone_since = now
        return [
            known.node
            for id, known in self._known.items()
            if id not in linked and not known.is_unfit and known.due_at <= now
        ]

    def link_to(self, node: RayNode, listen: Listen, now: float) -> NodeLink | None:
        """Start the actor of a node. None if Ray does not even take the order."""
        try:
            return NodeLink(self._cluster, node, self._remote_args, listen, now)
        except Exception as error:  # noqa: BLE001 - Ray raises anything
            self.is_lost(node, f"its actor cannot be started: {error}", now, was_up=False)
            return None

    def suits(self, node: RayNode, theirs: Mapping[str, str]) -> bool:
        """Whether a node has what the program has. If not, it is left out, with a warning."""
        found = differences(self._facts, theirs)
        if found and (known := self._known.get(node.id)) is not None:
            known.is_unfit = True
            known.reason = "; ".join(found)
            _log.warning("node %s is not used: %s", node.name, known.reason)
        return not found

    def opening(self, node: RayNode) -> tuple[PoolOptions, Packed | None]:
        """The arguments for `NodeActor.open`."""
        options = self._options
        if options.max_workers is None and not options.shared:
            options = options._replace(max_workers=max(1, node.cpus))
        return options, self._startup

    def is_up(self, node: RayNode) -> None:
        """A node takes jobs."""
        if (known := self._known.get(node.id)) is not None:
            known.attempts = 0

    def is_lost(self, node: RayNode, why: str, now: float, *, was_up: bool) -> None:
        """An actor is gone, or could not start. The next attempt comes after a pause."""
        if (known := self._known.get(node.id)) is None:
            return
        known.attempts += 1
        known.reason = why
        known.due_at = now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (known.attempts - 1))
        if not was_up:
            _log.warning("node %s cannot be used: %s", node.name, why)

    def is_late(self, link: NodeLink, now: float) -> None:
        """A node's actor has not started yet. Tell of it, once, if that takes long."""
        known = self._known.get(link.node.id)
        if known is not None and not known.is_late and now - link.since > _PATIENCE_S:
            known.is_late = True
            wanted = {key: self._remote_args[key] for key in sorted(self._remote_args)}
            _log.warning(
                "the actor of node %s has not started for %.0f s; if the node has no room for it,"
                " ask for less than ray_remote_args=%r",
                link.node.name,
                now - link.since,
                wanted,
            )

    def hopeless(self, now: float) -> Callable[[str], NoNode] | None:
        """If no node can be expected any more: what makes the error of a job, by its name."""
        if not self._known:
            if not self.is_settled or now - self._alone_since < _PATIENCE_S:
                return None
            text = "the Ray cluster has no node for the pool, or none that `nodes` names"
            return lambda job: NoNode(f"job {job!r} was not run: {text}")
        if not all(each.is_unfit or each.attempts >= _ENOUGH for each in self._known.values()):
            return None
        reasons = {each.node.name: each.reason for each in self._known.values()}
        lines = "".join(f"\n  {name}: {why}" for name, why in reasons.items())
        return lambda job: NoNode(
            f"job {job!r} was not run, because no node of the Ray cluster can be used:{lines}",
            reasons=reasons,
        )
