"""A client that traces its jobs: one after the other, for ever, so that it can be killed meanwhile.

Argument: the path of the trace. It writes the number of each job that has ended.
"""

import os
import sys

from compilepool import CompilePool, report_phase


def work() -> None:
    report_phase("working")


pool = CompilePool(1, trace=sys.argv[1])
number = 0
while True:
    pool.options(name=f"job {number}").submit(work).result()
    os.write(1, f"{number}\n".encode())
    number += 1
