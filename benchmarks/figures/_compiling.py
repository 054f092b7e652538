"""Measures kernels that a pool compiles: which share of the machine compiles, and the total time.

Each job measures its CPU time with that of its children (ptxas). The ideal duration is the sum of
these times in the same run, divided by the CPUs that the workers may use. The share does not show
whether a worker does more work than needed, so the seconds are reported, too.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.jobs import WAIT_S, wait_for_files
from benchmarks.metric import Metric, Value

WORKERS = 2

METRICS = {
    "share": Metric(
        "workers ready: compiling, share of the machine", "%", more_is_better=True, headline=True
    ),
    "compile_s": Metric("workers ready: all kernels", "s", headline=True),
    "cpu_s": Metric("CPU time of that, in jobs", "s"),
    "total_s": Metric("making a pool, all kernels, shutdown", "s", headline=True),
}

Call = tuple[Any, ...]


def compile_in(make: Callable[[], Any], calls: Sequence[Call], warm_up: Call) -> dict[str, Value]:
    """Measure two pools: one from nothing to its shutdown, and one whose workers are ready.

    Args:
        make: a function that makes the pool.
        calls: the functions to call, with their arguments.
        warm_up: the call after which a worker counts as ready; none of `calls`.
    """
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"
    began = time.perf_counter()
    pool = make()
    _all(pool, calls)
    pool.shutdown()
    total_s = time.perf_counter() - began

    pool = make()
    with tempfile.TemporaryDirectory() as folder:
        ready = [pool.submit(meet_and_run, folder, WORKERS, *warm_up) for _ in range(WORKERS)]
        for future in ready:
            future.result(WAIT_S)
    began = time.perf_counter()
    cpu_s = _all(pool, calls)
    compile_s = time.perf_counter() - began
    pool.shutdown()
    cores = min(WORKERS, len(os.sched_getaffinity(0)))
    return {
        "share": 100 * cpu_s / cores / compile_s,
        "compile_s": compile_s,
        "cpu_s": cpu_s,
        "total_s": total_s,
    }


def _all(pool: Any, calls: Sequence[Call]) -> float:
    """Run all calls. Returns the sum of their CPU times, in seconds."""
    futures = [pool.submit(run_timed, *call) for call in calls]
    return sum(float(future.result(WAIT_S)) for future in futures)


def meet_and_run(folder: str, count: int, function: Callable[..., Any], *args: Any) -> None:
    """Wait until all workers run this job, then call the function."""
    with open(os.path.join(folder, str(os.getpid())), "w"):
        wait_for_files(folder, count)
    function(*args)


def run_timed(function: Callable[..., Any], *args: Any) -> float:
    """Call the function. Returns its CPU time, in seconds."""
    before = _cpu_s()
    function(*args)
    return _cpu_s() - before


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
