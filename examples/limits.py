"""Set limits: one job runs too long, one takes too much memory, and one runs with options.

Run: python examples/limits.py
"""

import subprocess
import sys

from compilepool import CompilePool, JobTimeout, MemoryLimitExceeded, report_phase


def compile_for_ever() -> None:
    report_phase("assemble")
    subprocess.run(["sleep", "1000"], check=True)  # stands for an assembler that hangs


def unroll_too_much() -> None:
    subprocess.run([sys.executable, "-c", "x = []\nwhile True: x.append('x' * 10**8)"], check=True)


with CompilePool(max_workers=2, timeout=60, memory_limit="1GiB") as pool:
    slow = pool.options(name="softmax", timeout=0.5).submit(compile_for_ever)
    large = pool.options(name="matmul", memory_limit="256MiB").submit(unroll_too_much)
    good = pool.options(priority=1, retries=2, env={"ARCH": "sm_90"}).submit(pow, 2, 10)
    for future in (slow, large):
        try:
            future.result()
        except (JobTimeout, MemoryLimitExceeded) as error:
            print(error)
    print("result:", good.result(), "in", round(good.record.wall_seconds, 3), "s")
