"""One job at a time that does nothing: the time from submit to result."""

from __future__ import annotations

import time
from statistics import quantiles

from benchmarks.jobs import WAIT_S, all_answer, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "Latency",
    {
        "p50_us": Metric("submit to result, p50", "µs", headline=True),
        "p99_us": Metric("submit to result, p99", "µs", headline=True),
    },
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    calls = 50 if scale.quick else 2000
    pool = make(peer, 2)
    all_answer(pool, 2)
    times = []
    for call in range(calls + calls // 10):
        began = time.perf_counter()
        pool.submit(noop).result(WAIT_S)
        if call >= calls // 10:
            times.append(1e6 * (time.perf_counter() - began))
    pool.shutdown()
    percentiles = quantiles(times, n=100)
    return {"p50_us": percentiles[49], "p99_us": percentiles[98]}
