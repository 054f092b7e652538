"""What `compilepool top` costs the pools that it looks at: the CPU time of their supervisors.

`python -m benchmarks.top_cost` runs the scene of `top_scene`, and measures the CPU time of its
supervisors in turns: a while without looks, a while with one look a second, as `top` takes them,
and a while with twenty. The difference between none and twenty gives the cost of one look.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from compilepool.cli.top.pools import Pools
from compilepool.linux.proc import read_proc

_TURN_S = 10.0
_TURNS = 3


def _cpu_s(pids: list[int]) -> float:
    """CPU time to the nanosecond: the first field of schedstat, which is of the main thread."""
    return sum(int(read_proc(f"/proc/{pid}/schedstat").split()[0]) for pid in pids) / 1e9


def _turn(pids: list[int], pools: Pools, looks_a_second: int) -> tuple[float, float]:
    """The part of a core that the supervisors take, each, and that this process takes."""
    start, cpu, own = time.monotonic(), _cpu_s(pids), time.process_time()
    while (now := time.monotonic()) < start + _TURN_S:
        if looks_a_second:
            pools.look()
            time.sleep(max(0.0, now + 1 / looks_a_second - time.monotonic()))
        else:
            time.sleep(0.2)
    took = time.monotonic() - start
    return (_cpu_s(pids) - cpu) / took / len(pids), (time.process_time() - own) / took


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["XDG_RUNTIME_DIR"] = runtime  # so that nobody else's pool is in it
        _measure(runtime)


def _measure(runtime: str) -> None:
    scene = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.top_scene"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert scene.stdin is not None
    assert scene.stdout is not None
    scene.stdout.readline()
    time.sleep(1.5)  # a private pool has its socket when it is 1 s old
    pools = Pools()
    own = [pool.look for pool in pools.look() if pool.place.startswith(runtime)]
    ours = [look for look in own if look is not None]
    pids = [look.pid for look in ours]
    print(f"{len(pids)} pools, {sum(len(look.clients) for look in ours)} clients")
    rates = (0, 1, 20)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    taken: dict[int, list[tuple[float, float]]] = {rate: [] for rate in rates}
    for _ in range(_TURNS):
        for rate in rates:
            taken[rate].append(_turn(pids, pools, rate))
    for rate in rates:
        pool = statistics.median(part for part, _ in taken[rate])
        own = statistics.median(part for _, part in taken[rate])
        print(f"{rate:>2} looks a second: {pool:.3%} of a core for a supervisor, {own:.2%} here")
    many, few = (statistics.median(part for part, _ in taken[rate]) for rate in (20, 0))
    print(f"a look costs a supervisor {(many - few) / 20 * 1e3:.2f} ms")
    scene.stdin.close()
    scene.wait(60)


if __name__ == "__main__":
    main()
