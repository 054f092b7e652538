"""A pool that is warm when it is needed, and gone when it is not.

python examples/idle.py
"""

import os
import time

from compilepool import CompilePool

with CompilePool(max_workers=4, min_workers=0, idle_timeout=1.0, max_jobs_per_worker=100) as pool:
    pool.warm_up()  # returns at once: the program goes on with its own imports meanwhile
    pool.wait_ready(timeout=30)
    print("warm:     ", pool.stats().workers)
    print("runs in:  ", pool.submit(os.getpid).result())
    while not pool.stats().is_quiesced:
        time.sleep(0.05)
    print("idle:     ", pool.stats().memory.total >> 20, "MiB in all, and no CPU")
    start = time.perf_counter()
    pool.submit(os.getpid).result()
    print("woken in: ", round(time.perf_counter() - start, 3), "s")
    pool.quiesce()  # or by hand, at any time: jobs end first
