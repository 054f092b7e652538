"""Look at a job that hangs: its stacks, its phase and its child processes.

Run: python examples/hanging_job.py
"""

import subprocess
import time

from compilepool import CompilePool, report_phase


def compile_kernel() -> None:
    report_phase("assemble")
    subprocess.run(["sleep", "1000"], check=True)  # stands for an assembler that hangs


with CompilePool(max_workers=1) as pool:
    future = pool.options(name="softmax").submit(compile_kernel)
    while not (dump := pool.dump(future)).children:
        time.sleep(0.1)
    print(dump)
    future.cancel()  # kills the job and its child
