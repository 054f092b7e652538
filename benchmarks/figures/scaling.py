"""More workers than CPUs, with jobs that sleep: the time lost between jobs."""

from __future__ import annotations

import time

from benchmarks.jobs import WAIT_S, all_answer
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

WORKERS = (1, 2, 4, 8, 16, 32, 64)
JOB_S = 0.02
JOBS_EACH = 10

FIGURE = Figure(
    "Scaling",
    {
        f"share_{workers}": Metric(
            f"{workers} workers, jobs that sleep 20 ms: share of the ideal",
            "%",
            more_is_better=True,
            headline=workers in (2, 64),
        )
        for workers in WORKERS
    },
    rounds=2,
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    return {
        f"share_{workers}": _share(peer, workers)
        for workers in (WORKERS[:2] if scale.quick else WORKERS)
    }


def _share(peer: str, workers: int) -> float:
    pool = make(peer, workers)
    all_answer(pool, workers)
    began = time.perf_counter()
    futures = [pool.submit(time.sleep, JOB_S) for _ in range(workers * JOBS_EACH)]
    for future in futures:
        future.result(WAIT_S)
    took = time.perf_counter() - began
    pool.shutdown()
    return 100 * JOB_S * JOBS_EACH / took
