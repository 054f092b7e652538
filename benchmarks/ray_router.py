"""Simulate the router of `RayCompilePool` for a thousand nodes: how even it is, and how fast.

    python benchmarks/ray_router.py [NODES] [WORKERS] [JOBS]

Needs no Ray: the router decides without it. Jobs take 0.1 to 10 s, at random; half of the time all
are there at once, half of the time they come so that two thirds of the workers are busy. "keys":
each job has a key of its own, as with `single_flight`. "flights": jobs come in groups of four that
share a run.

- The CPU time for a decision: submit, give out and end of a job.
- The busiest node: the most jobs at once for each worker; 1 is full. The share of the busiest and
  of the idlest node of all work, by the mean.
- How long the jobs took in all, by the time in which all workers together could do them.
"""

from __future__ import annotations

import heapq
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from compilepool.integrations.ray.router import Router

DEFAULTS = (1000, 8, 200_000)


class Result(NamedTuple):
    decision_us: float
    busiest: float
    most: float
    least: float
    makespan: float


class Simulation:
    """The nodes run jobs; time is simulated."""

    def __init__(self, nodes: int, workers: int, jobs: int, kind: str, *, is_steady: bool) -> None:
        self.random = random.Random(7)
        self.router = Router()
        self.workers = workers
        self.names = [f"node {number}" for number in range(nodes)]
        for name in self.names:
            self.router.join(name, workers)
        self.durations = [self.random.uniform(0.1, 10.0) for _ in range(jobs)]
        if kind == "flights":
            self.durations = [self.durations[id - id % 4] for id in range(jobs)]
        self.kind = kind
        work = sum(self.durations) / (4 if kind == "flights" else 1)
        self.least_s = work / (nodes * workers)
        last = 1.5 * self.least_s if is_steady else 0.0
        self.arrivals = sorted(self.random.uniform(0.0, last) for _ in range(jobs))
        self.done_s = dict.fromkeys(self.names, 0.0)
        self.most_at_once = 0
        self.spent_s = 0.0
        self.end_of: dict[str, float] = {}

    def run(self) -> Result:
        events: list[tuple[float, int, int]] = [(at, 0, id) for id, at in enumerate(self.arrivals)]
        heapq.heapify(events)
        now = 0.0
        while events:
            now = events[0][0]
            begin = time.thread_time()
            while events and events[0][0] == now:
                _, is_end, id = heapq.heappop(events)
                if is_end:
                    self.router.ended(id, self.durations[id])
                else:
                    self.router.submit(id, key=self.key(id), flight=self.flight(id))
            gifts = self.router.next_gifts()
            self.spent_s += time.thread_time() - begin
            for node, id in gifts:
                self.router.arrived(id)
                end = now + self.durations[id]
                if self.flight(id) and self.flight(id) in self.end_of:
                    end = max(now, self.end_of[self.flight(id)])  # it joins, or the result is kept
                else:
                    self.done_s[node] += self.durations[id]
                    self.end_of[self.flight(id)] = end
                heapq.heappush(events, (end, 1, id))
                runs = {self.flight(each) or each for each in self.router.jobs_of(node)}
                self.most_at_once = max(self.most_at_once, len(runs))
        mean = sum(self.done_s.values()) / len(self.done_s)
        return Result(
            self.spent_s / len(self.durations) * 1e6,
            self.most_at_once / self.workers,
            max(self.done_s.values()) / mean,
            min(self.done_s.values()) / mean,
            now / max(self.least_s, self.arrivals[-1]),
        )

    def key(self, id: int) -> str:
        return f"key {id}" if self.kind == "keys" else self.flight(id)

    def flight(self, id: int) -> str:
        return f"flight {id // 4}" if self.kind == "flights" else ""


def main() -> None:
    nodes, workers, jobs = (int(each) for each in [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]])
    print(f"{nodes} nodes with {workers} workers each, {jobs} jobs")
    print("| jobs | a decision | busiest node | most work | least work | time |")
    print("|---|---|---|---|---|---|")
    for kind in ("no keys", "keys", "flights"):
        for is_steady in (False, True):
            result = Simulation(nodes, workers, jobs, kind, is_steady=is_steady).run()
            arrival = "steady" if is_steady else "at once"
            print(
                f"| {kind}, {arrival} | {result.decision_us:.1f} µs | {result.busiest:.2f} |"
                f" {result.most:.2f} | {result.least:.2f} | {result.makespan:.2f} |"
            )


if __name__ == "__main__":
    main()
