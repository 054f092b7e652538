"""The shutdown of an idle pool."""

from __future__ import annotations

import time

from benchmarks.jobs import all_answer
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "Shutdown", {"idle_ms": Metric("idle pool, until all is gone", "ms", headline=True)}
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    pool = make(peer, 2)
    all_answer(pool, 2)
    time.sleep(0.1)
    began = time.perf_counter()
    pool.shutdown()
    return {"idle_ms": 1000 * (time.perf_counter() - began)}
