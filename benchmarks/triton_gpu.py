"""Triton's kernels compile in a pool, and are launched on a GPU: results, cache hits, autotuning.

    python benchmarks/triton_gpu.py

This needs a CUDA GPU, and torch with Triton 3.6 or later. It ends with an error if something is not
as it should be. It takes about a minute.

- launched: kernels that `AsyncCompileMode` has compiled in workers are launched, and their results
  are compared with torch's. Triton's listener must hear only of cache hits in this process.
- same code: a process without the pool compiles the same kernels; their cubins must be equal.
- autotune: a kernel with six configurations is tuned and launched. One aborts LLVM, one takes too
  long to compile; both must be left out, and reported.
- no GPU in workers: no process of the pool has a device file of NVIDIA's open.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import triton
import triton.language as tl
from tests.proc import descendants
from triton.language import core

from compilepool import CompilePool, JobTimeout, WorkerCrashed
from compilepool.integrations.triton import PRELOAD, AsyncCompileExecutor, crash_proof

WORKERS = len(os.sched_getaffinity(0))
DEVICE = "cuda"
SIZE = 1000
SIDE = 256
TIMEOUT_S = 15.0
PLAIN = "--without-pool"
pool = CompilePool(WORKERS, preload=[PRELOAD])


@core.extern
def of_another_gpu(value: Any, _semantic: Any = None) -> Any:
    """An intrinsic of AMD's, at which LLVM aborts when it selects instructions for NVIDIA."""
    int32 = core.dtype("int32")
    name = "llvm.amdgcn.readfirstlane.i32"
    return core.extern_elementwise(
        "", "", [value], {(int32,): (name, int32)}, is_pure=False, _semantic=_semantic
    )


@triton.jit
def scaled(value, factor: tl.constexpr):  # type: ignore[no-untyped-def]
    return value * factor


@triton.jit
def add(x, y, out, n, factor: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    total = tl.load(x + at, mask=mask) + scaled(tl.load(y + at, mask=mask), factor)
    tl.store(out + at, total, mask=mask)


@triton.jit
def softmax(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, BLOCK)
    row = tl.load(x + tl.program_id(0) * n + at, mask=at < n, other=-float("inf"))
    weights = tl.exp(row - tl.max(row, axis=0))
    tl.store(out + tl.program_id(0) * n + at, weights / tl.sum(weights, axis=0), mask=at < n)


@triton.jit
def multiply(a, b, out, SIDE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, SIDE, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        left = tl.load(a + rows[:, None] * SIDE + inner[None, :])
        right = tl.load(b + inner[:, None] * SIDE + columns[None, :])
        total = tl.dot(left, right, total)
    tl.store(out + rows[:, None] * SIDE + columns[None, :], total.to(out.dtype.element_ty))


def configurations() -> list[Any]:
    good = [triton.Config({"BLOCK": size, "UNROLL": 1}) for size in (128, 256, 512, 1024)]
    aborts = triton.Config({"BLOCK": 64, "UNROLL": 1})
    is_slow = triton.Config({"BLOCK": 256, "UNROLL": 20000})
    return [*good, aborts, is_slow]


@crash_proof(pool, timeout=TIMEOUT_S)
@triton.autotune(configs=configurations(), key=["n"])
@triton.jit
def tuned(x, out, n, BLOCK: tl.constexpr, UNROLL: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    value = tl.load(x + at, mask=mask)
    if BLOCK == 64:
        value = of_another_gpu(value.to(tl.int32)).to(tl.float32)
    for _ in tl.static_range(UNROLL):
        value = value * value + tl.load(x + at, mask=mask)
    tl.store(out + at, value, mask=mask)


Launch = tuple[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any], Any]


def launches() -> Iterator[Launch]:
    """Kernel, grid, arguments, constants and options, and the expected content of `out`."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, y = (torch.randn(SIZE, device=DEVICE, dtype=dtype) for _ in range(2))
        for block in (128, 256):
            grid = (triton.cdiv(SIZE, block),)
            named = {"factor": 2, "BLOCK": block, "out": torch.empty_like(x)}
            yield add, grid, (x, y), {**named, "n": SIZE}, x + 2 * y
        rows = torch.randn(64, SIZE, device=DEVICE, dtype=torch.float32)
        named = {"out": torch.empty_like(rows), "n": SIZE, "BLOCK": 1024}
        warps = {torch.float32: 4, torch.float16: 8, torch.bfloat16: 16}[dtype]
        yield softmax, (64,), (rows,), {**named, "num_warps": warps}, torch.softmax(rows, 1)
    for dtype in (torch.float16, torch.bfloat16):
        a, b = (torch.randn(SIDE, SIDE, device=DEVICE, dtype=dtype) for _ in range(2))
        for block in (32, 64):
            for stages in (2, 3):
                named = {"out": torch.empty_like(a), "SIDE": SIDE, "BLOCK": block}
                grid = (SIDE // block, SIDE // block)
                expected = (a.float() @ b.float()).to(dtype)
                yield multiply, grid, (a, b), {**named, "num_stages": stages}, expected


def launch(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Launch a kernel. Returns what it has written."""
    kernel[grid](*args, **named)
    return named["out"]


def warm_up(todo: list[Launch]) -> list[Any]:
    """Compile each kernel, without a launch."""
    return [kernel.warmup(*args, grid=grid, **named) for kernel, grid, args, named, _ in todo]


def digests(kernels: list[Any]) -> list[str]:
    return [hashlib.sha256(kernel.asm["cubin"]).hexdigest() for kernel in kernels]


class Listener:
    """Triton's listener, which notes what this process has compiled, and what it has found."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.compiled: list[str] = []
        triton.knobs.compilation.listener = self.hear

    def hear(self, *, src: Any, cache_hit: bool, **_: Any) -> None:
        (self.hits if cache_hit else self.compiled).append(src.name)


def check(is_right: bool, text: str) -> None:
    print(("ok      " if is_right else "WRONG   ") + text, flush=True)
    if not is_right:
        pool.kill_workers()
        sys.exit(1)


def opened_gpus(pids: list[int]) -> list[str]:
    """Device files of NVIDIA's that these processes have open."""
    found = []
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(fd)
            except OSError:
                continue  # it has ended, or closed it
            if target.startswith("/dev/nvidia"):
                found.append(f"{pid}: {target}")
    return found


def in_the_pool(todo: list[Launch]) -> list[str]:
    heard = Listener()
    began = time.perf_counter()
    with triton.AsyncCompileMode(AsyncCompileExecutor(pool)):
        warm_up(todo)
    seconds = time.perf_counter() - began
    pids = descendants(os.getpid())
    opened = opened_gpus(pids)
    check(bool(pids) and not opened, f"none of {len(pids)} processes has opened a GPU: {opened}")
    for kernel, grid, args, named, expected in todo:
        result = launch(kernel, grid, args, named)
        tolerance = 1e-5 if expected.dtype == torch.float32 else 2e-2
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
    check(True, f"launched {len(todo)} kernels, and the results are torch's")
    check(
        not heard.compiled and len(heard.hits) == len(todo),
        f"the listener heard of {len(heard.hits)} cache hits here, {len(heard.compiled)} compiled",
    )
    print(f"        compiled by {WORKERS} workers, the pool's start included: {seconds:.2f} s")
    return digests(warm_up(todo))


def same_code(in_workers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, __file__, PLAIN],
            env={**os.environ, "TRITON_CACHE_DIR": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    said = json.loads(ended.stdout)
    pairs = zip(said["digests"], in_workers, strict=True)
    other = [place for place, (plain, pooled) in enumerate(pairs) if plain != pooled]
    check(not other, f"the same {len(in_workers)} cubins without the pool; other ones: {other}")
    print(f"        compiled by one process without the pool: {said['seconds']:.2f} s")


def without_pool() -> None:
    todo = list(launches())
    began = time.perf_counter()
    kernels = warm_up(todo)
    seconds = time.perf_counter() - began
    print(json.dumps({"digests": digests(kernels), "seconds": seconds}))


def autotuned() -> None:
    heard = Listener()
    x = torch.rand(SIZE, device=DEVICE)
    out = torch.empty_like(x)
    began = time.perf_counter()
    tuned[lambda meta: (triton.cdiv(SIZE, meta["BLOCK"]),)](x, out, SIZE)
    seconds = time.perf_counter() - began
    torch.testing.assert_close(out, x * x + x)
    kinds = {
        (config.kwargs["BLOCK"], config.kwargs["UNROLL"]): type(error)
        for config, error in tuned.left_out.items()
    }
    check(
        kinds == {(64, 1): WorkerCrashed, (256, 20000): JobTimeout},
        f"autotune left out { ({key: kind.__name__ for key, kind in kinds.items()}) }",
    )
    check(tuned.best_config not in tuned.left_out, f"it measured the others: {tuned.best_config}")
    check(not heard.compiled, f"and found all of them in the cache: {len(heard.hits)} hits")
    print(f"        {seconds:.2f} s, {TIMEOUT_S:.0f} s of which are the limit of the slow one")
    for error in tuned.left_out.values():
        print("\n" + str(error))


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    print(f"{torch.cuda.get_device_name()}, Triton {triton.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder, pool:
        os.environ["TRITON_CACHE_DIR"] = folder
        os.environ["COMPILEPOOL_CRASH_DIR"] = os.path.join(folder, "crashes")
        torch.manual_seed(0)
        same_code(in_the_pool(list(launches())))
        autotuned()
        pool.shutdown()


if __name__ == "__main__":
    without_pool() if PLAIN in sys.argv else main()
