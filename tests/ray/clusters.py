"""Ray clusters on this machine, and what is left on their nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

import ray
from tests.proc import command_line, pids_with_environment, wait_until

MARK = "COMPILEPOOL_RAY_TEST"
STORE = 80 << 20
_RAYS_OWN = re.compile(
    r"raylet|gcs_server|ray/_private|ray/dashboard|ray/autoscaler|ray::(IDLE|DashboardAgent|RuntimeEnvAgent)"
)


class Nodes:
    """A cluster. Everything that its nodes start has a mark in its environment.

    Args:
        count: the number of its nodes; each has two CPUs.
        crashes: the folder for crash folders.
    """

    def __init__(self, count: int, crashes: Path) -> None:
        self.mark = uuid.uuid4().hex
        os.environ[MARK] = self.mark
        os.environ["COMPILEPOOL_CRASH_DIR"] = str(crashes)
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 2,
                "object_store_memory": STORE,
                "include_dashboard": False,
            },
        )
        for _ in range(count - 1):
            self.add()
        self.address: str = self.cluster.address
        ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)

    def add(self, **arguments: Any) -> Any:
        """Add a node, and return Ray's object for it."""
        return self.cluster.add_node(num_cpus=2, object_store_memory=STORE, **arguments)

    def remove(self, node: Any) -> None:
        """Remove a node; it may be dead."""
        with contextlib.suppress(Exception):
            self.cluster.remove_node(node, allow_graceful=False)

    def marked(self) -> list[int]:
        """All processes of the cluster, and all that they have started."""
        return pids_with_environment(f"{MARK}={self.mark}")

    def ours(self) -> list[int]:
        """Those that are not Ray's own."""
        return [
            pid
            for pid in self.marked()
            if (line := command_line(pid)) and not _RAYS_OWN.search(line)
        ]

    def actors(self) -> list[int]:
        """The actors of pools."""
        return [pid for pid in self.marked() if command_line(pid).startswith("ray::NodeActor")]

    def actor_on(self, node: Any) -> int:
        """The actor of a pool on a node."""
        id = node.node_id.encode()
        [actor] = [
            pid
            for pid in self.actors()
            if id in Path(f"/proc/{raylet_of(pid)}/cmdline").read_bytes()
        ]
        return actor

    def processes(self, kind: str) -> list[int]:
        """The processes of pools of one kind, such as "supervisor"."""
        return [pid for pid in self.marked() if command_line(pid) == f"compilepool {kind}"]

    def close(self) -> None:
        """End it, with all that its nodes have started."""
        ray.shutdown()
        self.cluster.shutdown()
        gone = wait_until(lambda: not self.ours())
        left = {pid: command_line(pid) for pid in self.marked()}
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        del os.environ[MARK], os.environ["COMPILEPOOL_CRASH_DIR"]
        assert gone, left


def raylet_of(actor: int) -> int:
    """The PID of the raylet that has started an actor."""
    stat = Path(f"/proc/{actor}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


@contextlib.contextmanager
def nodes(count: int, crashes: Path) -> Iterator[Nodes]:
    """A cluster, for a block."""
    cluster = Nodes(count, crashes)
    try:
        yield cluster
    finally:
        cluster.close()
