"""Make the workers of a `ProcessPoolExecutor` end with their parent, however the parent ends.

Run: python examples/stock_pool.py
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from compilepool import has_parent_changed, in_toplevel_process, worker_initializer


def where_am_i() -> str:
    """What a library asks before it starts a pool of its own."""
    return f"top-level: {in_toplevel_process()}, parent gone: {has_parent_changed()}"


if __name__ == "__main__":
    with ProcessPoolExecutor(
        2,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=worker_initializer,
        initargs=(os.getpid(),),
    ) as pool:
        print("here:     ", where_am_i())
        print("in a job: ", pool.submit(where_am_i).result())
