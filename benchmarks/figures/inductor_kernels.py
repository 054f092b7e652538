"""Kernels that Inductor generates for blocks of a GPT, compiled cold by two workers.

This needs torch and triton, but no GPU: Inductor is told that there is one. compilepool takes part
as the `SubprocPool` that it puts in place of torch's. Each client has imported torch.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from benchmarks.figures._compiling import METRICS, WORKERS, compile_in
from benchmarks.metric import Figure, Scale, Value
from benchmarks.peers import make

KERNELS = "kernels.json"
PRELOAD = ("torch._inductor.compile_worker.__main__",)

FIGURE = Figure(
    "Inductor kernels",
    METRICS,
    rounds=3,
    timeout_s=180,
    peers=("compilepool", "fork", "forkserver", "pebble", "torch"),
)


def missing() -> str:
    absent = [name for name in ("torch", "triton") if not importlib.util.find_spec(name)]
    return f"{' and '.join(absent)} not installed" if absent else ""


def prepare(folder: str) -> dict[str, Value]:
    """Let Inductor generate the kernels, once for all pools."""
    from benchmarks.gpt_kernels import generate

    kernels = generate()
    Path(folder, KERNELS).write_text(json.dumps(kernels))
    return {"kernels": float(len(kernels))}


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    import torch._inductor.runtime.triton_heuristics  # noqa: F401 - a real program has imported it

    kernels = json.loads(Path(scale.folder, KERNELS).read_text())
    warm_up, *calls = [(compile_kernel, name, source) for name, source in kernels]
    return compile_in(lambda: _pool(peer), calls[:3] if scale.quick else calls, warm_up)


def _pool(peer: str) -> Any:
    if peer == "compilepool":
        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

        return SubprocPool(WORKERS)
    return make(peer, WORKERS, PRELOAD)


def compile_kernel(name: str, source: str) -> None:
    """Do what Inductor's workers do, without starting Triton's driver, which needs a GPU."""
    from torch._inductor.codecache import _load_triton_kernel_from_source
    from torch._inductor.runtime import triton_helpers
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    triton_helpers.set_driver_to_gpu = lambda: None
    load = functools.partial(_load_triton_kernel_from_source, name, source)
    _worker_compile_triton(load, {}, {"use_static_triton_launcher": False})
