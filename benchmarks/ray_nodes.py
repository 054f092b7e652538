"""Measure what a job over a Ray cluster costs, beside a bare call of an actor and a local pool.

    python benchmarks/ray_nodes.py [NODES]

Needs Ray. The nodes of the cluster are on this machine and share its CPUs, so this says nothing of
how much faster more machines are. A job is `abs(-1)`.

- overhead: the time from submit to result of a job that is alone; median, and the range of the
  middle half.
- throughput: 5000 jobs that are submitted at once; the median of five runs.
- memory of a node: what is private to the processes after these jobs (proc(5), `smaps_rollup`).
  For a `RayCompilePool` these are the actor and all below it. What Ray has on a node anyway, such
  as the raylet, counts nowhere.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from ray.cluster_utils import Cluster
from tests.proc import command_line, descendants

import ray
from compilepool import CompilePool
from compilepool.integrations.ray import RayCompilePool
from compilepool.linux.proc import smaps_rollup

WORKERS = 2
STORE = 80 << 20
SINGLE = 300
MANY = 5000
RUNS = 5


class Bare:
    """An actor without a pool. A crash in it ends it, with all that it does."""

    async def call(self, value: int) -> int:
        return abs(value)

    async def pid(self) -> int:
        return os.getpid()


def private_mb(pids: Iterable[int]) -> float:
    maps = [smaps_rollup(pid) for pid in pids]
    return sum(each["Private_Dirty"] + each["Private_Clean"] for each in maps) / 1e6


def measure(name: str, one: Callable[[], object], many: Callable[[int], object]) -> str:
    many(MANY)
    singles = []
    for _ in range(SINGLE):
        begin = time.perf_counter()
        one()
        singles.append((time.perf_counter() - begin) * 1e3)
    rates = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        many(MANY)
        rates.append(MANY / (time.perf_counter() - begin))
    low, median, high = statistics.quantiles(singles, n=4)
    return (
        f"| {name} | {median:.2f} ms ({low:.2f} to {high:.2f}) | {statistics.median(rates):.0f}/s |"
    )


def of_executor(name: str, pool: Executor) -> str:
    def many(count: int) -> None:
        for future in [pool.submit(abs, -1) for _ in range(count)]:
            future.result()

    return measure(name, lambda: pool.submit(abs, -1).result(), many)


def actors(name: str) -> list[int]:
    found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in found if command_line(pid).startswith(f"ray::{name}")]


def of_bare(actor: Any) -> str:
    def many(count: int) -> None:
        ray.get([actor.call.remote(-1) for _ in range(count)])

    return measure("call of a bare actor", lambda: ray.get(actor.call.remote(-1)), many)


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    head = {"num_cpus": WORKERS, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    others = actors("NodeActor")
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=WORKERS, object_store_memory=STORE)
        ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        load = os.getloadavg()[0]
        print(f"{len(os.sched_getaffinity(0))} CPUs, load {load:.1f} before; Ray {ray.__version__}")
        print("| | overhead | throughput | memory of a node |")
        print("|---|---|---|---|")
        with CompilePool(WORKERS) as local:
            row = of_executor(f"`CompilePool`, {WORKERS} workers", local)
            below = [
                pid
                for pid in descendants(os.getpid())
                if command_line(pid).startswith("compilepool ")
            ]
            print(f"{row} {private_mb(below):.0f} MB |", flush=True)
        actor = ray.remote(Bare).options(num_cpus=0).remote()
        row = of_bare(actor)
        print(f"{row} {private_mb([ray.get(actor.pid.remote())]):.0f} MB |", flush=True)
        del actor
        for count in sorted({1, nodes}):
            names = [node["NodeID"] for node in ray.nodes()][:count]
            with RayCompilePool(WORKERS, nodes=names) as pool:
                pool.wait_ready()
                row = of_executor(f"`RayCompilePool`, {count} nodes of {WORKERS} workers", pool)
                ours = [pid for pid in actors("NodeActor") if pid not in others]
                whole = [private_mb([pid, *descendants(pid)]) for pid in ours]
                alone = statistics.mean(map(private_mb, ([pid] for pid in ours)))
                memory = f"{statistics.mean(whole):.0f} MB, of which the actor {alone:.0f} MB"
                print(f"{row} {memory} |", flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
