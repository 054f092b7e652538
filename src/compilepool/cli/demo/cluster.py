"""A Ray cluster of several nodes on this machine, and a pool over it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compilepool.cli.demo.compilation import PRELOAD
from compilepool.integrations.ray import RayCompilePool

_STORE = 100 << 20  # bytes; Ray's least is 75 MiB


@contextmanager
def pool_over_nodes(
    nodes: int, workers: int, trace: Path, report: Path
) -> Iterator[RayCompilePool]:
    """Start a cluster, and have a pool over it.

    Args:
        nodes: the number of its nodes.
        workers: the number of jobs that run at once on each.
        trace: the path of the trace file.
        report: the path of the report.

    Raises:
        ImportError: Ray is not installed, or too old.
    """
    from compilepool.integrations.ray.cluster import require_ray

    ray = require_ray()
    from ray.cluster_utils import Cluster

    head = {"num_cpus": workers, "object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=workers, object_store_memory=_STORE)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        with RayCompilePool(
            workers, preload=PRELOAD, progress=True, trace=trace, report=report
        ) as pool:
            pool.wait_ready()
            yield pool
    finally:
        ray.shutdown()
        cluster.shutdown()
