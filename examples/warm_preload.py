"""Pay for a slow import once, in the fork server, instead of in each worker.

Run: python examples/warm_preload.py
"""

import os
import sys

from compilepool import CompilePool


def which_process() -> tuple[int, bool]:
    """A job that finds its module already imported."""
    return os.getpid(), "sqlite3" in sys.modules


with CompilePool(max_workers=4, preload=["sqlite3", "xml.dom.minidom"]) as pool:
    pool.warm_up()
    for pid, is_loaded in pool.map(lambda _: which_process(), range(8)):
        print(f"worker {pid}: sqlite3 {'was there' if is_loaded else 'had to be imported'}")
