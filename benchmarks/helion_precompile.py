"""Measure Helion's precompile step: its fork for each configuration, and our pool.

    python benchmarks/helion_precompile.py [ROUNDS] [--autotune]

Helion generates matmul kernels for 24 configurations, and has two at a time compiled, with an empty
Triton cache. The seconds from the first configuration to the last, in turn with a fork and with
the pool; and those that the pool takes to start, which a program has in the background. The first
round warms up files and is left out.

Without a GPU, the kernels are for one that is not there. With one, `--autotune` also has Helion
tune the kernel, once in each way, and compares the result with torch's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import helion
import helion.language as hl
import torch
from helion.autotuner.logger import AutotuningLogger
from helion.autotuner.precompile_future import PrecompileContext, PrecompileFuture
from torch._subclasses import FakeTensorMode

from compilepool.integrations.helion import current_pool, install, uninstall

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    from tests.pytorch import fake_gpu

    fake_gpu.plug_in()

WORKERS = 2
SIZE = 1024


def matmul_function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices."""
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc
    return out


CONFIGS = [
    helion.Config(block_sizes=[m, n, k], num_warps=warps)
    for m in (32, 64)
    for n in (32, 64)
    for k in (16, 32, 64)
    for warps in (4, 8)
]


def measure(kernel: Any, tensors: Sequence[torch.Tensor], folder: str) -> float:
    """The seconds that Helion takes to have all configurations compiled."""
    os.environ["TRITON_CACHE_DIR"] = folder
    context = PrecompileContext(
        kernel.settings, AutotuningLogger(kernel.settings), kernel, tensors, jobs=WORKERS
    )
    functions = [kernel.compile_config(config) for config in CONFIGS]
    began = time.perf_counter()
    futures = [
        PrecompileFuture.create(context, config, fn, tensors, f"{folder}/{number}", None)
        for number, (config, fn) in enumerate(zip(CONFIGS, functions, strict=True))
    ]
    if not all(PrecompileFuture.wait_for_all(futures)):
        raise RuntimeError("a configuration was not compiled")
    return time.perf_counter() - began


def autotune(tensors: Sequence[torch.Tensor], folder: str) -> float:
    """The seconds that Helion takes to tune the kernel, which must be right."""
    os.environ.update(TRITON_CACHE_DIR=folder, HELION_SKIP_CACHE="1")
    tuned = helion.kernel(autotune_effort="quick")(matmul_function)
    began = time.perf_counter()
    result = tuned(*tensors)
    seconds = time.perf_counter() - began
    torch.testing.assert_close(result, tensors[0] @ tensors[1], rtol=1e-2, atol=1e-1)
    return seconds


def seconds_to_start(workers: int | None) -> float:
    """Install a pool, and wait for it. None: as many workers as CPUs, as Helion forks."""
    began = time.perf_counter()
    install(max_workers=workers)
    pool = current_pool()
    assert pool is not None
    pool.wait_ready()
    return time.perf_counter() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--autotune", action="store_true")
    options = parser.parse_args()
    device = "cuda" if HAS_GPU else "cpu"
    tensors = [torch.randn(SIZE, SIZE, device=device, dtype=torch.float16) for _ in range(2)]
    matmul = helion.kernel(config=CONFIGS[0])(matmul_function)
    if HAS_GPU:
        kernel = matmul.bind(tuple(tensors))
    else:
        with FakeTensorMode(allow_non_fake_inputs=True):
            fakes = [torch.empty(SIZE, SIZE, device="cuda", dtype=torch.float16) for _ in tensors]
        kernel = matmul.bind(tuple(fakes))
    seconds: dict[str, list[float]] = {"fork": [], "pool": []}
    starts = []
    for _ in range(options.rounds + 1):
        for way, so_far in seconds.items():
            if way == "pool":
                starts.append(seconds_to_start(WORKERS))
            with tempfile.TemporaryDirectory() as folder:
                so_far.append(measure(kernel, tensors, folder))
            uninstall()
    load = os.getloadavg()[0]
    print(
        f"{len(CONFIGS)} configurations, {WORKERS} at a time, {options.rounds} rounds, load {load}"
    )
    for way, all_rounds in seconds.items():
        rounds = all_rounds[1:]
        print(f"{way}: {statistics.median(rounds):.2f} s ({min(rounds):.2f} to {max(rounds):.2f})")
    ratios = [fork / pool for fork, pool in zip(*seconds.values(), strict=True)][1:]
    print(f"fork / pool: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    print(f"start of the pool: {statistics.median(starts):.1f} s")
    if options.autotune and HAS_GPU:
        for way in seconds:
            if way == "pool":
                seconds_to_start(None)
            with tempfile.TemporaryDirectory() as folder:
                print(f"whole autotuning, {way}: {autotune(tensors, folder):.1f} s")
            uninstall()


if __name__ == "__main__":
    main()
