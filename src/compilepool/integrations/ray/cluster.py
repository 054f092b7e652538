"""The connection of this program to Ray, and the nodes of the cluster."""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from compilepool.observe.quiet_logger import QuietLogger
from compilepool.text import describe

OLDEST = (2, 40)
"""The oldest Ray that this works with."""

_LOOK_S = 1.0
"""How often to look for nodes that have come or gone."""
_LOOK_SHARE = 0.05
"""The most of a thread's time that looking may take; with thousands of nodes it takes long."""

_log = QuietLogger(__name__)


class RayNode(NamedTuple):
    """A node of the cluster.

    Attributes:
        id: Ray's name for it.
        name: its name in records and reports: host and the beginning of the id.
        address: its IP address.
        cpus: the CPUs that Ray counts there.
    """

    id: str
    name: str
    address: str
    cpus: int


def require_ray() -> Any:
    """Import Ray.

    Raises:
        ImportError: it is not installed, or too old.
    """
    advice = "pip install -U 'compilepool[ray]'"
    oldest = ".".join(map(str, OLDEST))
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"RayCompilePool needs Ray, which is not installed: {advice}") from None
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise ImportError(f"RayCompilePool needs Ray {oldest} or newer, not {version}: {advice}")
    import ray

    return ray


class Cluster:
    """A connection to Ray. This process may have had it before: then it stays.

    Args:
        address: as for `ray.init`; None: the connection that there is, or else what `ray.init`
            finds or starts.
        only: the IDs or IP addresses of the nodes to use; None: all.
        wants_cpus: whether nodes that Ray says have no CPU are left out.

    Raises:
        ImportError: Ray is not installed, or too old.
        ValueError: this process is connected to another cluster.
        ConnectionError: there is no cluster at this address.
    """

    def __init__(
        self, address: str | None, only: Collection[str] | None, *, wants_cpus: bool
    ) -> None:
        self.ray = ray = require_ray()
        if (address or "").startswith("ray://") or ray.util.client.ray.is_connected():
            raise ValueError(
                "RayCompilePool does not work through Ray Client (ray://): run this program on a"
                " node of the cluster, for example by `ray job submit`"
            )
        self._only = None if only is None else frozenset(only)
        self._wants_cpus = wants_cpus
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            ray.init(address=address, log_to_driver=False)
        self._gcs = ray.get_runtime_context().gcs_address
        if not self._is_ours and address not in (None, "auto") and not self._is_at(address):
            raise ValueError(
                f"this process is connected to the Ray cluster at {self._gcs}, not to {address};"
                " leave `address` out, or call ray.shutdown() before"
            )
        self._job = ray.get_runtime_context().get_job_id()
        self._is_over = threading.Event()

    def _is_at(self, address: str) -> bool:
        """Whether this is the address of the cluster, in whatever words."""
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            host = socket.gethostbyname(host)
        if host.startswith("127."):
            host = self.ray.util.get_node_ip_address()
        return f"{host}:{port}" == str(self._gcs)

    @property
    def is_there(self) -> bool:
        """Whether this process still has the connection: somebody may have called ray.shutdown."""
        ray = self.ray
        return bool(ray.is_initialized()) and ray.get_runtime_context().get_job_id() == self._job

    def check(self) -> None:
        """Check that the connection is there. Whoever calls Ray without one makes another one.

        Raises:
            ConnectionError: it is gone.
        """
        if not self.is_there:
            raise ConnectionError("this process's connection to Ray was shut down")

    def nodes(self) -> list[RayNode]:
        """The nodes that are alive and to be used."""
        return [
            node
            for each in self.ray.nodes()
            if each["Alive"] and self._is_wanted(node := _node_of(each))
        ]

    def watch(self, tell: Callable[[Sequence[RayNode] | None], object]) -> None:
        """Tell which nodes there are, again and again, in a thread of its own.

        Args:
            tell: called with the nodes; with None if the connection is gone, for the last time.
        """
        target = self._watch
        threading.Thread(target=target, args=(tell,), name="compilepool nodes", daemon=True).start()

    def close(self) -> None:
        """Stop watching. A connection that was there before stays; any other one is ended."""
        self._is_over.set()
        if self._is_ours and self.is_there:
            self.ray.shutdown()

    def _watch(self, tell: Callable[[Sequence[RayNode] | None], object]) -> None:
        pause_s = 0.0
        while not self._is_over.wait(pause_s):
            begin = time.monotonic()
            try:
                if not self.is_there:
                    tell(None)
                    return
                tell(self.nodes())
            except Exception as error:  # noqa: BLE001 - the head may be unreachable for a while
                _log.warning("the nodes of the Ray cluster cannot be listed: %s", describe(error))
            pause_s = max(_LOOK_S, (time.monotonic() - begin) / _LOOK_SHARE)

    def _is_wanted(self, node: RayNode) -> bool:
        if self._only is not None and not self._only & {node.id, node.address}:
            return False
        return node.cpus > 0 or not self._wants_cpus


def _node_of(entry: dict[str, Any]) -> RayNode:
    id = entry["NodeID"]
    cpus = int(entry.get("Resources", {}).get("CPU", 0))
    return RayNode(
        id, f"{entry['NodeManagerHostname']}/{id[:8]}", entry["NodeManagerAddress"], cpus
    )
