"""Fill Numba's cache in parallel. The second run finds everything in it, and compiles nothing.

Run: python examples/compilers/numba_cache.py    (needs Numba)
"""

import numba
import numpy as np

from compilepool import CompilePool, WorkerCrashed
from compilepool.integrations.numba import PRELOAD, compile_many


@numba.njit(cache=True)
def dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += x[i] * y[i]
    return total


def power(exponent):
    @numba.njit(cache=True)
    def raised(x):
        return x**exponent

    return raised


square, cube = power(2), power(3)
jobs = [
    (dot, "(f8[::1], f8[::1])"),
    (dot, "(f4[::1], f4[::1])"),
    (square, "(f8,)"),
    (cube, "(f8,)"),
]
with CompilePool(max_workers=2, preload=[PRELOAD], timeout=120) as pool:
    for future in compile_many(jobs, pool=pool):
        try:
            print(future.name, "compiled" if future.result() else "was in the cache")
        except WorkerCrashed as crash:
            print(crash)

print("results:", dot(np.ones(3), np.ones(3)), square(3.0), cube(3.0))
hits = sum(function.stats.cache_hits.total() for function in (dot, square, cube))
print("loaded from the cache:", hits)
