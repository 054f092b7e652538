"""A client with much memory and many threads starts a pool, and so does a small one."""

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
"""What is left to the machine."""

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
    """In a process of its own: ms from making a pool to its first result, second to fourth time.

    The first, just after all that memory was taken, tells of the machine: its next pages are ones
    that it has not used for long, or never.
    """
    make(peer, 2).shutdown()  # for what it imports; nothing has started
    if client_gb:
        size = int(client_gb * 1e9)
        # Private: of shared memory, a fork copies no page tables.
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
