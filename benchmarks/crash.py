"""How long after a segfault among other jobs the pool answers the next job.

    python benchmarks/crash.py [RUNS]

Each run: 16 jobs of 0.2 s on 2 workers, and one among them that segfaults. All 16 have their
results, the one its `WorkerCrashed`. Then one more job is submitted and timed.
"""

from __future__ import annotations

import ctypes
import signal
import statistics
import sys
import time

from compilepool import CompilePool, WorkerCrashed


def run() -> tuple[float, float]:
    """The seconds for all jobs, and for the next one."""
    began = time.perf_counter()
    with CompilePool(2) as pool:
        jobs = [pool.submit(time.sleep, 0.2) for _ in range(8)]
        bad = pool.options(name="bad").submit(ctypes.string_at, 0)
        jobs += [pool.submit(time.sleep, 0.2) for _ in range(8)]
        for job in jobs:
            job.result()
        error = bad.exception()
        if not isinstance(error, WorkerCrashed) or error.signal != signal.SIGSEGV:
            sys.exit(f"expected a segfault of 'bad', not {error!r}")
        all_done = time.perf_counter()
        pool.submit(abs, -1).result()
        return all_done - began, time.perf_counter() - all_done


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    outcomes = [run() for _ in range(runs)]
    names = ("16 jobs of 0.2 s on 2 workers", "the next job")
    for what, seconds in zip(names, zip(*outcomes, strict=True), strict=True):
        times = [1000 * each for each in seconds]
        print(f"{what}: median {statistics.median(times):.1f} ms, max {max(times):.1f} ms")


main()
