"""Triton's `AsyncCompileMode` with a pool of two workers, beside the program that compiles alone.

    python benchmarks/triton_async.py [ROUNDS]

Needs Triton, and no GPU. The 24 slowest kernels of the demo are compiled for an H100, each time
into an empty cache, in a process that has imported Triton, by `kernel.warmup`.

- alone: as Triton does without `AsyncCompileMode`.
- pool: with `AsyncCompileExecutor`, from the making of the pool to its shutdown.
- ready: the same, without the pool's start and shutdown.

Each round takes them in turn. It prints the seconds, the ratios, and the load of the machine. It
fails if the cubins differ, or if the program with the pool has compiled anything itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from compilepool.cli.demo.variants import VARIANTS

KERNELS = 24
WORKERS = 2
ALONE, POOL, READY = MODES = ("alone", "pool", "ready")


def main(rounds: int) -> None:
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(1, rounds + 1):
        load = os.getloadavg()[0]
        said = {mode: run(mode) for mode in MODES}
        for mode in MODES:
            seconds[mode].append(said[mode]["seconds"])
        if len({tuple(each["digests"]) for each in said.values()}) > 1:
            raise SystemExit("the cubins differ")
        times = ", ".join(f"{mode} {seconds[mode][-1]:.2f} s" for mode in MODES)
        ratios = ", ".join(f"{ratio(seconds, mode)[-1]:.2f}" for mode in (POOL, READY))
        print(f"round {number}: {times}; times as fast: {ratios}; load {load:.1f}", flush=True)
    for mode in (POOL, READY):
        print(f"{mode}: {median(ratio(seconds, mode)):.2f} times as fast (median)")


def ratio(seconds: dict[str, list[float]], mode: str) -> list[float]:
    return [alone / ours for alone, ours in zip(seconds[ALONE], seconds[mode], strict=True)]


def run(mode: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, __file__, mode],
            env={**os.environ, "TRITON_CACHE_DIR": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    said: dict[str, Any] = json.loads(ended.stdout)
    return said


def measure(mode: str) -> None:
    import triton
    from tests.programs.triton_kernels import Listener, target_without_gpu

    from compilepool import CompilePool
    from compilepool.integrations.triton import PRELOAD, AsyncCompileExecutor

    heard = triton.knobs.compilation.listener = Listener()
    with target_without_gpu():
        began = time.perf_counter()
        if mode == ALONE:
            kernels = warm_up()
            seconds = time.perf_counter() - began
        else:
            with CompilePool(WORKERS, preload=[PRELOAD, "compilepool.cli.demo.kernels"]) as pool:
                if mode == READY:
                    pool.wait_ready()
                    began = time.perf_counter()
                with triton.AsyncCompileMode(AsyncCompileExecutor(pool)):
                    warm_up()
                seconds = time.perf_counter() - began
            if mode == POOL:
                seconds = time.perf_counter() - began
            kernels = warm_up()
            if heard.compiled:
                raise SystemExit(f"the program has compiled {heard.compiled}")
    digests = [hashlib.sha256(kernel.asm["cubin"]).hexdigest() for kernel in kernels]
    print(json.dumps({"seconds": seconds, "digests": digests}))


def warm_up() -> list[Any]:
    """Compile the kernels. Large ones come first, so that no worker ends long before the other."""
    from tests.programs.triton_kernels import Pointer

    from compilepool.cli.demo import kernels

    made = []
    for variant in VARIANTS[: -KERNELS - 1 : -1]:
        values = {
            name: Pointer(type_[1:]) if type_.startswith("*") else 1.5 if "fp" in type_ else 1024
            for name, type_ in variant.arguments.items()
        }
        kernel = getattr(kernels, variant.kernel)
        options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
        made.append(kernel.warmup(grid=(1,), **values, **variant.constants, **options))
    return made


if __name__ == "__main__":
    first = sys.argv[1] if len(sys.argv) > 1 else "3"
    measure(first) if first in MODES else main(int(first))
