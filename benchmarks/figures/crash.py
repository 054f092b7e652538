"""A job segfaults: the time to its error, to the next result, and until all workers answer.

If the crash breaks the pool, its user must make another, and the time includes that.
"""

from __future__ import annotations

import time
from concurrent.futures import BrokenExecutor
from typing import Any

from benchmarks.jobs import WAIT_S, all_answer, crash, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "A job segfaults",
    {
        "error_ms": Metric("submit to its error", "ms", headline=True),
        "next_ms": Metric("its error to the next job's result", "ms", headline=True),
        "full_ms": Metric("its error until both workers answer", "ms", headline=True),
        "survives": Metric("the pool goes on", "", headline=True),
        "lost": Metric("other jobs lost, of 16", "", headline=True),
    },
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    pool = make(peer, 2)
    all_answer(pool, 2)
    began = time.perf_counter()
    pool.submit(crash).exception(WAIT_S)
    failed = time.perf_counter()
    survives = True
    try:
        pool.submit(noop).result(WAIT_S)
    except BrokenExecutor:
        survives = False
        pool = make(peer, 2)
        pool.submit(noop).result(WAIT_S)
    answered = time.perf_counter()
    all_answer(pool, 2)
    full = time.perf_counter()
    lost = _lost(pool, 0.01 if scale.quick else 0.05)
    return {
        "error_ms": 1000 * (failed - began),
        "next_ms": 1000 * (answered - failed),
        "full_ms": 1000 * (full - failed),
        "survives": "yes" if survives else "no",
        "lost": lost,
    }


def _lost(pool: Any, job_s: float) -> int:
    """Return how many of 16 jobs fail when a job among them segfaults."""
    futures = [pool.submit(time.sleep, job_s) for _ in range(4)]
    pool.submit(crash)
    futures += [pool.submit(time.sleep, job_s) for _ in range(12)]
    return sum(future.exception(WAIT_S) is not None for future in futures)
