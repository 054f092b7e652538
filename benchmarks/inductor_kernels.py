"""Kernels that Inductor generates for blocks of a GPT, compiled cold: by PyTorch's pool, and ours.

    python benchmarks/inductor_kernels.py [RUNS]

Needs torch and triton, and no GPU: Inductor is told that there is one. Each run is a process of its
own, with empty caches, that has imported torch; they take turns, RUNS (3) times, with one that
compiles them all by itself. In seconds,
median, least and most:

- ready: from the call that makes the pool to the result of a first job, which does nothing.
- compile: from then until all kernels are there; 2 workers.
- shutdown: until the pool is gone.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

POOLS = ("torch", "compilepool", "serial")
ROWS = ("ready", "compile", "shutdown", "in all")
WORKERS = 2
WIDTH = 256
WIDTHS_FORWARD = (320, 384)


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernels = os.path.join(folder, "kernels.json")
        count = json.loads(run("--generate", kernels))
        print(f"{count} kernels, {WORKERS} workers; Python {platform.python_version()}, ", end="")
        print(f"{os.cpu_count()} CPUs; torch, triton: {json.loads(run('--versions'))}", flush=True)
        measured: dict[str, list[dict[str, float]]] = {pool: [] for pool in POOLS}
        for _ in range(runs):
            for pool in POOLS:
                measured[pool].append(json.loads(run("--compile", pool, kernels)))
                print(pool, measured[pool][-1], flush=True)
    print("\n| | " + " | ".join(POOLS) + " |\n|" + "---|" * (len(POOLS) + 1))
    for row in ROWS:
        print(
            f"| {row} | " + " | ".join(cell([r.get(row) for r in measured[p]]) for p in POOLS), "|"
        )
    ratio = median(r["in all"] for r in measured["compilepool"]) / median(
        r["in all"] for r in measured["torch"]
    )
    print(f"\nin all, compilepool takes {ratio:.2f} of what torch's pool takes")


def cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{median(known):.2f} ({min(known):.2f} to {max(known):.2f})"


def run(*arguments: str) -> str:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        env = {
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TRITON_CACHE_DIR": os.path.join(cache, "triton"),
            "TMPDIR": cache,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        }
        command = [sys.executable, "-W", "ignore", __file__, *arguments]
        output = subprocess.check_output(command, env={**os.environ, **env}, text=True)
        return output.splitlines()[-1]


# In a process of its own


def generate(path: str) -> int:
    """Have Inductor generate the kernels of a training step, and note them instead of compiling."""
    import torch
    from tests.pytorch import fake_gpu
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.codecache import CodeCacheFuture

    fake_gpu.plug_in()
    kernels: dict[str, str] = {}

    class Noted(CodeCacheFuture):  # type: ignore[misc] # torch is not typed
        def result(self, timeout: float | None = None) -> Any:
            return None

    def note(_self: Any, name: str, source: str, *_args: Any, **_options: Any) -> Any:
        kernels[source] = name
        return Noted()

    AsyncCompile.triton = note
    x = (4, 128, WIDTH)
    fake_gpu.compile_for(training_step(torch), x, x, *weights(WIDTH))
    for width in WIDTHS_FORWARD:
        fake_gpu.compile_for(block(torch), (4, 128, width), *weights(width))
    Path(path).write_text(json.dumps([[name, source] for source, name in kernels.items()]))
    return len(kernels)


def weights(width: int) -> list[tuple[int, ...]]:
    return [(width,), (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def block(torch: Any) -> Any:
    functional = torch.nn.functional

    def forward(x: Any, norm: Any, qkv: Any, out: Any, up: Any, down: Any) -> Any:
        batch, length, width = x.shape
        heads = width // 64
        h = functional.layer_norm(x, (width,), norm)
        q, k, v = (h @ qkv).view(batch, length, 3, heads, 64).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) / 8).softmax(-1) @ v
        x = x + attention.transpose(1, 2).reshape(batch, length, width) @ out
        x = x + functional.gelu(functional.layer_norm(x, (width,), norm) @ up) @ down
        return functional.log_softmax(x, -1)

    return forward


def training_step(torch: Any) -> Any:
    forward = block(torch)

    def step(gradient: Any, *tensors: Any) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in tensors]
        gradients = torch.autograd.grad(forward(*inputs), inputs, gradient)
        return [tensor - 0.1 * g / g.norm() for tensor, g in zip(tensors, gradients, strict=True)]

    return step


def compile_all(pool_name: str, path: str) -> dict[str, float]:
    import inductor_job
    import torch._inductor.runtime.triton_heuristics  # noqa: F401 - a program has it already

    kernels = json.loads(Path(path).read_text())
    start = time.perf_counter()
    if pool_name == "serial":
        for name, source in kernels:
            inductor_job.compile_kernel(name, source)
        return {"in all": time.perf_counter() - start}
    if pool_name == "torch":
        from torch._inductor.compile_worker.subproc_pool import SubprocPool
    else:
        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool
    pool = SubprocPool(WORKERS)
    pool.submit(max, 1, 2).result()
    ready = time.perf_counter()
    futures = [pool.submit(inductor_job.compile_kernel, *kernel) for kernel in kernels]
    for future in futures:
        future.result()
    compiled = time.perf_counter()
    pool.shutdown()
    end = time.perf_counter()
    times = (ready - start, compiled - ready, end - compiled, end - start)
    return dict(zip(ROWS, (round(seconds, 3) for seconds in times), strict=True))


def versions() -> str:
    import torch
    import triton

    return f"{torch.__version__}, {triton.__version__}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--generate"]:
        print(json.dumps(generate(sys.argv[2])))
    elif sys.argv[1:2] == ["--compile"]:
        print(json.dumps(compile_all(*sys.argv[2:])))
    elif sys.argv[1:2] == ["--versions"]:
        print(json.dumps(versions()))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
