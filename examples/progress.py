"""Show progress while jobs run, print statistics at the end, and write a trace.

Run: python examples/progress.py. Progress appears only if error output is a terminal.
"""

import tempfile
import time
from pathlib import Path

from compilepool import CompilePool, as_completed, report_phase


def compile_kernel(size: int) -> int:
    for phase in ("parse", "optimize", "ptxas"):
        report_phase(phase)
        time.sleep(0.05 * size)
    if size == 3:
        raise ValueError("tile 96 is no power of 2")
    return size


with tempfile.TemporaryDirectory() as folder:
    trace = Path(folder) / "compile.json"
    with CompilePool(max_workers=2, trace=trace) as pool:
        futures = [
            pool.options(name=f"matmul_{32 * size}").submit(compile_kernel, size)
            for size in range(1, 7)
        ]
        for future in as_completed(futures, progress=True):
            phases = ", ".join(f"{each.name} {each.seconds:.2f} s" for each in future.record.phases)
            print(future.name, "failed" if future.exception() else "done", f"({phases})")
        print(pool.stats())
    print("trace:", trace.stat().st_size, "bytes, to be opened in https://ui.perfetto.dev")
