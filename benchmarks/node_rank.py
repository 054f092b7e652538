"""One rank of `benchmarks/node.py`, and the job that it submits."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 600


def make_kernels(path: str) -> None:
    """Let Inductor make the kernels, and write their names and sources to a file."""
    from benchmarks.gpt_kernels import generate

    Path(path).write_text(json.dumps(generate()))


def rank(mode: str, workers: str, kernels: str, folder: str) -> None:
    """Be one rank: get all kernels from a pool, and say how far it is by files in a folder."""
    import torch._inductor.runtime.triton_heuristics  # noqa: F401 - a real program has imported it

    number = os.environ["RANK"]
    jobs = json.loads(Path(kernels).read_text())
    began = time.perf_counter()
    pool = make_pool(mode, int(workers))
    pool.submit(max, 1, 2).result(PATIENCE_S)
    Path(folder, f"first{number}").write_text(str(time.perf_counter() - began))
    Path(folder, f"ready{number}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.002)
    log = str(Path(folder, "compiled.log"))
    futures = [pool.submit(compile_and_note, log, name, source) for name, source in jobs]
    for future in futures:
        future.result(PATIENCE_S)
    Path(folder, f"done{number}").touch()
    while not Path(folder, "end").exists():
        time.sleep(0.002)
    pool.shutdown()


def make_pool(mode: str, workers: int) -> Any:
    if mode == "torch":
        from torch._inductor.compile_worker.subproc_pool import SubprocPool as TorchsPool

        return TorchsPool(workers)
    from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

    return SubprocPool(workers)


def compile_and_note(log: str, name: str, source: str) -> None:
    """Compile a kernel, and note how long that took."""
    from benchmarks.figures.inductor_kernels import compile_kernel

    began = time.perf_counter()
    compile_kernel(name, source)
    with Path(log).open("a") as file:
        file.write(f"{time.perf_counter() - began:.4f}\n")
