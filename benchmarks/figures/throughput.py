"""Many jobs at once that do nothing: jobs per second."""

from __future__ import annotations

import time

from benchmarks.jobs import WAIT_S, all_answer, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "Throughput",
    {
        "jobs_per_s": Metric(
            "10,000 jobs that do nothing", "jobs/s", more_is_better=True, headline=True
        ),
        "submit_us": Metric("one submit of them", "µs"),
    },
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    count = 200 if scale.quick else 10_000
    pool = make(peer, 2)
    all_answer(pool, 2)
    began = time.perf_counter()
    futures = [pool.submit(noop) for _ in range(count)]
    submitted = time.perf_counter()
    for future in futures:
        future.result(WAIT_S)
    ended = time.perf_counter()
    pool.shutdown()
    return {
        "jobs_per_s": count / (ended - began),
        "submit_us": 1e6 * (submitted - began) / count,
    }
