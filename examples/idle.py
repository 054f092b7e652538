"""Keep a pool warm while it is needed, and let its processes end while it is idle.

Run: python examples/idle.py
"""

import os
import time

from compilepool import CompilePool

with CompilePool(max_workers=4, min_workers=0, idle_timeout=1.0, max_jobs_per_worker=100) as pool:
    pool.warm_up()  # returns at once, so that the program can go on with its own imports
    pool.wait_ready(timeout=30)
    print("warm:     ", pool.stats().workers)
    print("runs in:  ", pool.submit(os.getpid).result())
    while not pool.stats().is_quiesced:
        time.sleep(0.05)
    print("idle:     ", pool.stats().memory.total >> 20, "MiB in all, and no CPU")
    start = time.perf_counter()
    pool.submit(os.getpid).result()
    print("woken in: ", round(time.perf_counter() - start, 3), "s")
    pool.quiesce()  # the same by hand, at any time: jobs end first
