"""Run dask's graphs on a pool.

Run: python examples/in_your_program/dask_scheduler.py
"""

import ctypes

import dask

from compilepool import CompilePool, WorkerCrashed


@dask.delayed
def compile_kernel(size: int) -> str:
    return f"matmul_{size}" if size != 96 else ctypes.string_at(0)  # stands for a compiler's bug


@dask.delayed
def link(*kernels: str) -> str:
    return " + ".join(kernels)


with CompilePool(2) as pool:
    print(link(compile_kernel(32), compile_kernel(64)).compute(scheduler=pool))
    with dask.config.set(scheduler=pool):
        print(link(compile_kernel(128), compile_kernel(256)).compute())
        try:
            link(compile_kernel(96), compile_kernel(32)).compute()
        except WorkerCrashed as crash:
            print(str(crash).splitlines()[0])
