"""Ray clusters on this machine, and what is left on their nodes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

import ray
from tests.proc import command_line, pids_with_environment, wait_until

MARK = "COMPILEPOOL_RAY_TEST"
PRESTART = "RAY_prestart_worker_first_driver"
"""Ray's switch for workers that no test needs: they take a second of CPU time each."""
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
        os.environ[PRESTART] = "0"
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

    def left(self, pools: Collection[int]) -> dict[int, str]:
        """What is there besides pools with these actors: what is no process of theirs."""
        found = {}
        for pid in self.ours():
            above = pid
            while above > 1 and above not in pools:
                above = parent_of(above)
            line = command_line(pid)
            if above not in pools or (pid != above and not line.startswith("compilepool ")):
                found[pid] = line
        return found

    def actors(self) -> list[int]:
        """The actors of pools."""
        return [pid for pid in self.marked() if command_line(pid).startswith("ray::NodeActor")]

    def actor_on(self, node: Any) -> int:
        """The actor of a pool on a node."""
        id = node.node_id.encode()
        [actor] = [
            pid
            for pid in self.actors()
            if id in Path(f"/proc/{parent_of(pid)}/cmdline").read_bytes()
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
        for name in (MARK, PRESTART, "COMPILEPOOL_CRASH_DIR"):
            del os.environ[name]
        assert gone, left


def parent_of(pid: int) -> int:
    """The PID of a process's parent, which is its raylet if it is an actor; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextlib.contextmanager
def nodes(count: int, crashes: Path) -> Iterator[Nodes]:
    """A cluster, for a block."""
    cluster = Nodes(count, crashes)
    try:
        yield cluster
    finally:
        cluster.close()
