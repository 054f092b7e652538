"""A pool that has run jobs and is idle: the time to its next result."""

from __future__ import annotations

import time
from statistics import median

from benchmarks.jobs import WAIT_S, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "Warm start",
    {"first_ms": Metric("pool idle for 0.5 s to next result", "ms", headline=True)},
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    pool = make(peer, 2)
    pool.submit(noop).result(WAIT_S)
    times = []
    for _ in range(1 if scale.quick else 5):
        time.sleep(0.5)
        began = time.perf_counter()
        pool.submit(noop).result(WAIT_S)
        times.append(1000 * (time.perf_counter() - began))
    pool.shutdown()
    return {"first_ms": median(times)}
