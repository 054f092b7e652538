"""A pool started by a client with much memory and many threads, and by a small client."""

from __future__ import annotations

import json
import mmap
import threading
import time
from statistics import median

import psutil

from benchmarks.fresh import fresh_python
from benchmarks.jobs import WAIT_S, noop
from benchmarks.metric import Figure, Metric, Scale, Value
from benchmarks.peers import make

THREADS = 50
SPARE_GB = 4.0
"""The memory that the big client leaves free, in GB."""

FIGURE = Figure(
    "A big client",
    {
        "small_ms": Metric("small client: making a pool to first result", "ms", headline=True),
        "big_ms": Metric(
            "big client, of 50 threads: making a pool to first result", "ms", headline=True
        ),
        "client_gb": Metric("the big client's memory", "GB", headline=True, is_setting=True),
    },
    rounds=3,
)

PROGRAM = """\
import sys
from benchmarks.figures.big_client import start
print(start(sys.argv[1], float(sys.argv[2])), flush=True)
__import__("os")._exit(0)
"""


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    wanted = 0.1 if scale.quick else scale.client_gb
    client_gb = max(0.1, min(wanted, psutil.virtual_memory().available / 1e9 - SPARE_GB))
    _, small = fresh_python(PROGRAM, peer, "0")
    _, big = fresh_python(PROGRAM, peer, str(client_gb), timeout_s=90)
    return {"small_ms": json.loads(small), "big_ms": json.loads(big), "client_gb": client_gb}


def start(peer: str, client_gb: float) -> float:
    """Run in a new process: return the ms from making a pool to its first result.

    The median of the second to the fourth pool counts. The first one measures the machine: right
    after that much memory was taken, new pages are ones that were not used for long, or never.
    """
    make(peer, 2).shutdown()  # for its imports only: no process starts
    if client_gb:
        size = int(client_gb * 1e9)
        # Private, because a fork does not copy the page tables of shared memory.
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages = len(range(0, size, mmap.PAGESIZE))
        memory[:: mmap.PAGESIZE] = b"x" * pages
        for _ in range(THREADS):
            threading.Thread(target=threading.Event().wait, args=[WAIT_S], daemon=True).start()
    times = []
    for _ in range(4):
        began = time.perf_counter()
        pool = make(peer, 2)
        pool.submit(noop).result(WAIT_S)
        times.append(1000 * (time.perf_counter() - began))
        pool.shutdown()
    return median(times[1:])
