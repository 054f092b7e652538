"""A long queue: the memory and the time that a queued job costs while all workers are busy."""

from __future__ import annotations

import tempfile
import time

import psutil

from benchmarks.jobs import all_answer, meet, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

FIGURE = Figure(
    "100,000 queued jobs",
    {
        "client_b": Metric("memory of a queued job in the client", "bytes", headline=True),
        "elsewhere_b": Metric(
            "memory of a queued job in all other processes", "bytes", headline=True
        ),
        "first_us": Metric("a submit, of the first 10,000", "µs"),
        "last_us": Metric("a submit, of the last 10,000", "µs", headline=True),
    },
    rounds=2,
)


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    count, part = (1000, 100) if scale.quick else (100_000, 10_000)
    pool = make(peer, 2)
    all_answer(pool, 2)
    # They wait for a third worker that does not exist, longer than this measurement takes.
    folder = tempfile.mkdtemp()
    blocked = [pool.submit(meet, folder, 3) for _ in range(2)]
    for _ in range(10):
        blocked.append(pool.submit(noop))  # some pools send a few jobs ahead: these are not queued
    client, elsewhere = _settled_memory()
    marks = [time.perf_counter()]
    futures = []
    for _ in range(count // part):
        futures += [pool.submit(noop) for _ in range(part)]
        marks.append(time.perf_counter())
    client_after, elsewhere_after = _settled_memory()
    if any(future.done() for future in futures):
        raise RuntimeError("jobs have ended that were to wait")
    return {
        "client_b": (client_after - client) / count,
        "elsewhere_b": (elsewhere_after - elsewhere) / count,
        "first_us": 1e6 * (marks[1] - marks[0]) / part,
        "last_us": 1e6 * (marks[-1] - marks[-2]) / part,
    }


def _settled_memory() -> tuple[int, int]:
    """Return the PSS of this process and of all below it, once the latter has stopped growing."""
    last, deadline = -1, time.monotonic() + 10
    while time.monotonic() < deadline:
        me = psutil.Process()
        below = sum(p.memory_full_info().pss for p in me.children(recursive=True))
        if abs(below - last) < 100_000:
            break
        last = below
        time.sleep(0.3)
    return me.memory_full_info().pss, below
