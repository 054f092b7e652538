"""Show where the time of jobs goes that do nothing.

    python benchmarks/where.py

- Throughput: 10,000 jobs at once on two workers. For each thread of each process: the CPU time per
  job, in us, and the context switches per job.
- Latency: one job after the other. The medians, in us, of the call of `submit`, the time until the
  job begins, its duration, and the time until its result is there.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import psutil

from compilepool import CompilePool

JOBS = 10_000
SERIAL = 2_000


def threads() -> dict[tuple[str, int], tuple[float, int]]:
    """Return CPU seconds and context switches of each thread of this process and those below it."""
    me = psutil.Process()
    found = {}
    for process in [me, *me.children(recursive=True)]:
        name = "client" if process == me else Path(f"/proc/{process.pid}/comm").read_text().strip()
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
            status = (task / "status").read_text().splitlines()
            switches = sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
            found[name, int(task.name)] = seconds, switches
    return found


def all_at_once(pool: CompilePool) -> None:
    for job in [pool.submit(abs, -1) for _ in range(JOBS)]:
        job.result()


def main() -> None:
    with CompilePool(2) as pool:
        all_at_once(pool)
        before = threads()
        began = time.perf_counter()
        all_at_once(pool)
        took = time.perf_counter() - began
        print(f"{JOBS / took:.0f} jobs/s")
        for key, (seconds, switches) in threads().items():
            earlier_s, earlier = before.get(key, (0.0, 0))
            spent = (seconds - earlier_s) / JOBS * 1e6
            print(f"{key[0]:14} {spent:6.1f} us {(switches - earlier) / JOBS:6.2f} switches")

        steps: list[tuple[float, ...]] = []
        for _ in range(SERIAL):
            began = time.time()
            job = pool.submit(abs, -1)
            submitted = time.time()
            job.result()
            done = time.time()
            started, ended = job.record.started, job.record.ended
            assert started is not None
            assert ended is not None
            steps.append((submitted - began, started - began, ended - started, done - ended))
        names = ("submit", "until it begins", "it runs", "until its result is there")
        for name, times in zip(names, zip(*steps, strict=True), strict=True):
            print(f"{name:26} {median(times) * 1e6:6.0f} us")


if __name__ == "__main__":
    main()
