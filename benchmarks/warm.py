"""Measure what warm, quiesced and new workers cost, and what PyTorch's pool does in their place.

    python benchmarks/warm.py [RUNS]
    python benchmarks/warm.py --torch [RUNS]

- What is left of a pool of four workers after `quiesce`, without and with `keep_warm`: processes,
  their memory, and the CPU time that they take in 10 s.
- The time from a submit to the first result of a pool that sleeps.
- The time from the SIGKILL of an idle worker until the pool is ready again, with another worker.
- 10,000 jobs that do nothing, in workers that are replaced after ten jobs, and in workers that
  stay; with descriptors and memory of the processes that stay, before and after.

With `--torch`, which needs torch and triton, it runs warm_torch.py. Memory is PSS (proc(5),
`smaps_rollup`): what several processes share counts for each with its part.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proc import PATIENCE_S, children, descendants, is_alive, pool_processes, wait_until

from compilepool import CompilePool
from compilepool.linux.proc import smaps_rollup

WORKERS = 4
WATCH_S = 10.0
JOBS = 10_000
JOBS_BEFORE = 1000
POLL_S = 0.0002


def pss_mb(pids: Iterable[int]) -> float:
    return sum(smaps_rollup(pid)["Pss"] for pid in pids) / 1e6


def private_mb(pids: Iterable[int]) -> float:
    maps = [smaps_rollup(pid) for pid in pids]
    return sum(each["Private_Dirty"] + each["Private_Clean"] for each in maps) / 1e6


def cpu_ticks(pids: Iterable[int]) -> int:
    """Return the sum of utime and stime in /proc/PID/stat, proc(5)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def of_pool() -> list[int]:
    """Return all processes below this one, zombies included."""
    return descendants(os.getpid())


def settle(processes: int) -> list[int]:
    """Wait until there are so many processes, and a little longer for their last work."""
    if not wait_until(lambda: len(of_pool()) == processes):
        sys.exit(f"expected {processes} processes, not {of_pool()}")
    time.sleep(0.5)
    return of_pool()


def fall_asleep(pool: CompilePool, *, keep_warm: bool) -> list[int]:
    pool.quiesce(keep_warm=keep_warm)
    return settle(2 if keep_warm else 1)


def quiesced(*, keep_warm: bool) -> str:
    """Return what is left of a pool that has run jobs."""
    with CompilePool(WORKERS) as pool:
        pool.wait_ready()
        for future in [pool.submit(abs, 1) for _ in range(JOBS_BEFORE)]:
            future.result()
        del future
        left = fall_asleep(pool, keep_warm=keep_warm)
        memory = f"{pss_mb(left):6.1f} {private_mb(left):9.1f}"
        before = cpu_ticks(left)
        time.sleep(WATCH_S)
        return f"{len(left):9} {memory} {cpu_ticks(left) - before:9}"


def wakes(runs: int, *, keep_warm: bool) -> list[float]:
    """Return the seconds from submit to result, each time in a pool that sleeps."""
    times = []
    with CompilePool(WORKERS) as pool:
        pool.submit(os.getpid).result()
        for _ in range(runs):
            fall_asleep(pool, keep_warm=keep_warm)
            began = time.monotonic()
            pool.submit(os.getpid).result()
            times.append(time.monotonic() - began)
    return times


def replace_worker(pool: CompilePool) -> float:
    """Kill an idle worker of a ready pool. Returns the seconds until the pool is ready again."""
    # The pool stops replacing workers that die in a row without a job between them.
    pool.submit(abs, 1).result()
    before = pool_processes("worker")
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    for is_ready in (False, True):
        while pool.ready is not is_ready:
            time.sleep(POLL_S)
            if time.monotonic() - began > PATIENCE_S:
                sys.exit("a killed worker was not missed, or not replaced")
    seconds = time.monotonic() - began
    after = pool_processes("worker")
    if len(after) != len(before) or before[0] in after:
        sys.exit(f"expected another worker in place of {before[0]}, not {after}")
    return seconds


def replaced(runs: int) -> list[float]:
    with CompilePool(WORKERS) as pool:
        pool.wait_ready()
        return [replace_worker(pool) for _ in range(runs)]


class Footprint(NamedTuple):
    """Descriptors and resident MB of the processes that stay, and the number of zombies."""

    client: tuple[int, float]
    supervisor: tuple[int, float]
    fork_server: tuple[int, float]
    zombies: int

    def __str__(self) -> str:
        cells = [f"{fds:5} {mb:6.1f}" for fds, mb in self[:3]]
        return "  ".join(cells) + f" {self.zombies:9}"


def footprint() -> Footprint:
    gc.collect()
    supervisor, fork_server = (pool_processes(kind)[0] for kind in ("supervisor", "fork server"))
    found = [(fd_count(pid), resident_mb(pid)) for pid in (os.getpid(), supervisor, fork_server)]
    return Footprint(*found, zombies=sum(not is_alive(pid) for pid in of_pool()))


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def run_noops(pool: CompilePool, count: int) -> float:
    """Run jobs that do nothing. Returns how many ran per second."""
    began = time.monotonic()
    for future in [pool.submit(abs, 1) for _ in range(count)]:
        future.result()
    return count / (time.monotonic() - began)


def throughput(max_jobs_per_worker: int | None) -> tuple[float, Footprint, Footprint, int]:
    """Return jobs per second, footprints before and after, and the number of replaced workers."""
    with CompilePool(max_jobs_per_worker=max_jobs_per_worker) as pool:
        pool.wait_ready()
        run_noops(pool, JOBS_BEFORE)
        time.sleep(1)
        before = footprint()
        recycled = pool.stats().recycled
        rate = run_noops(pool, JOBS)
        time.sleep(1)
        return rate, before, footprint(), pool.stats().recycled - recycled


def show(what: str, seconds: list[float]) -> None:
    ms = [1000 * each for each in seconds]
    print(f"{what:45} {min(ms):7.1f} {statistics.median(ms):7.1f} {max(ms):7.1f}", flush=True)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    if children(os.getpid()):
        sys.exit("this process has children already")
    print(f"{'left when it sleeps':45} processes PSS MB  private CPU ticks")
    for keep_warm in (False, True):
        what = "after quiesce" + ", keep_warm=True" * keep_warm
        print(f"{what:45} {quiesced(keep_warm=keep_warm)}", flush=True)
    print(f"{'ms':45}     min  median     max")
    show("first result of a pool that sleeps", wakes(runs, keep_warm=False))
    show("the same, keep_warm=True", wakes(runs, keep_warm=True))
    show("killed idle worker until another is ready", replaced(runs))
    print(f"{f'{JOBS} jobs that do nothing':45} client fds, MB  supervisor  fork server  zombies")
    for most in (10, None):
        rate, before, after, recycled = throughput(most)
        print(f"max_jobs_per_worker={most}: {rate:.0f} jobs/s, {recycled} workers replaced")
        print(f"{'  before':45} {before}\n{'  after':45} {after}", flush=True)


def main_with_torch() -> None:
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: {' and '.join(missing)} not installed here")
        return
    from warm_torch import compare

    compare(int(sys.argv[2]) if len(sys.argv) > 2 else 3)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        main_with_torch()
    else:
        main()
