"""Compile sixteen kernels, of which one crashes the compiler. The other jobs are not affected.

Run: python examples/one_bad_kernel.py
"""

import concurrent.futures
import ctypes

from compilepool import CompilePool, WorkerCrashed


def compile_kernel(name: str) -> bytes:
    """Stands for a compiler with a bug."""
    if name == "kernel_7":
        ctypes.string_at(0)  # a real segmentation fault
    return f"code of {name}".encode()


with CompilePool(max_workers=2) as pool:
    futures = {
        pool.options(name=name).submit(compile_kernel, name): name
        for name in (f"kernel_{i}" for i in range(16))
    }
    for future in concurrent.futures.as_completed(futures):
        try:
            print(f"{futures[future]}: {len(future.result())} bytes")
        except WorkerCrashed as crash:
            print(crash)
