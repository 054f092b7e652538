"""Profile jobs with cProfile: each job measures itself, and the program adds the profiles up.

Run: python examples/in_your_program/profiled_jobs.py [fork | spawn]
"""

import cProfile
import pstats
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from compilepool import CompilePool


def profiled(folder: str, function: Callable[..., object], *args: object) -> object:
    """A job: runs a function and leaves its profile in a folder."""
    profile = cProfile.Profile()
    try:
        return profile.runcall(function, *args)
    finally:
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            profile.dump_stats(file.name)


def allocate_registers(count: int) -> int:
    return sum(each % 7 for each in range(count))


def compile_kernel(size: int) -> int:
    return allocate_registers(size * 2_000)


start_method = sys.argv[1] if len(sys.argv) > 1 else "fork"
with (
    tempfile.TemporaryDirectory() as folder,
    CompilePool(2, start_method=start_method) as pool,
):
    futures = [pool.submit(profiled, folder, compile_kernel, n) for n in (1, 2, 3, 4)]
    print("results:", [future.result() for future in futures])
    stats = pstats.Stats(*map(str, Path(folder).iterdir()))
    stats.sort_stats("cumulative").print_stats("compile_kernel|allocate_registers")
