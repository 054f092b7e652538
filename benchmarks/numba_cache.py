"""Measure how fast Numba's cache is filled: by one process as usual, and by workers.

    python benchmarks/numba_cache.py [ROUNDS] [--workers N]

A module has 40 functions of some size, each with a cache. A fresh program that has imported it
compiles them, one after the other or by `compile_many`. The seconds of each round, side by side,
from there until all are compiled, the start of the pool included. Then a program that knows nothing
of the pool runs all functions, and counts its hits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FUNCTIONS = 40

HEAD = "import numba, numpy as np\n"
FUNCTION = """
@numba.njit(cache=True)
def smooth_{number}(grid, out, steps):
    rows, columns = grid.shape
    for step in range(steps):
        for i in range(1, rows - 1):
            for j in range(1, columns - 1):
                total = {number}.0
                for k in range(-1, 2):
                    total += grid[i + k, j] * np.exp(-abs(k)) + grid[i, j + k] * np.cos(k)
                out[i, j] = total / (1.0 + np.sqrt(abs(total)))
        grid, out = out, grid
    histogram = np.zeros(16)
    for value in np.sort(grid.ravel()):
        histogram[int(value) % 16] += 1
    return histogram.sum() + np.median(grid) + grid.mean()
"""
PREPARE = """
import sys, time
import kernels
signature = "(f8[:, ::1], f8[:, ::1], i8)"
functions = [getattr(kernels, f"smooth_{{n}}") for n in range({functions})]
"""
SERIALLY = """
import numba
began = time.perf_counter()
for function in functions:
    function.compile(numba.core.sigutils.normalize_signature(signature)[0])
print(time.perf_counter() - began)
"""
BY_WORKERS = """
from compilepool import CompilePool
from compilepool.integrations.numba import PRELOAD, compile_many
began = time.perf_counter()
with CompilePool({workers}, preload=[PRELOAD, "kernels"]) as pool:
    compiled = [f.result() for f in compile_many([(f, signature) for f in functions], pool=pool)]
assert all(compiled)
print(time.perf_counter() - began)
"""
CHECK = """
import numpy
grid = numpy.arange(64.0).reshape(8, 8)
results = [function(grid.copy(), grid.copy(), 2) for function in functions]
expected = [function.py_func(grid.copy(), grid.copy(), 2) for function in functions]
assert numpy.allclose(results, expected)
assert "compilepool" not in sys.modules
print(sum(function.stats.cache_hits.total() for function in functions))
"""


def run(program: str, folder: Path) -> float:
    """The number that a program prints."""
    command = [sys.executable, "-c", PREPARE.format(functions=FUNCTIONS) + program]
    env = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def measure(program: str) -> tuple[float, int]:
    """The seconds that a program needs to fill the cache; and then, how often another hits it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        functions = (FUNCTION.format(number=number) for number in range(FUNCTIONS))
        (folder / "kernels.py").write_text(HEAD + "\n".join(functions))
        seconds = run(program, folder)
        return seconds, int(run(CHECK, folder))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    ratios = []
    print(f"{FUNCTIONS} functions, {options.workers} workers, load {os.getloadavg()[0]}")
    for _ in range(options.rounds):
        serially, hits = measure(SERIALLY)
        by_workers, hits_of_workers = measure(BY_WORKERS.format(workers=options.workers))
        if hits != FUNCTIONS or hits_of_workers != FUNCTIONS:
            raise RuntimeError(f"{hits} and {hits_of_workers} hits of {FUNCTIONS}")
        ratios.append(serially / by_workers)
        print(f"serially {serially:.2f} s, by workers {by_workers:.2f} s: {ratios[-1]:.2f} times")
    print(f"median: {statistics.median(ratios):.2f} times as fast, all found in the cache")


if __name__ == "__main__":
    main()
