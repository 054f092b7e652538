"""Compare a warm `CompilePool` with PyTorch's own pool of compile workers, with the same preload.

    python benchmarks/warm.py --torch [RUNS]

Both have eight workers, forked from a process that has imported all that PyTorch's sidecar imports
(its `__main__`, and what that does before it forks). A pool is ready when each of the eight workers
has run a job; the job's own time is not counted. Memory, of a worker and of all processes, is read
three times: then, after each worker has compiled a kernel of `compilepool demo`, and after each has
run a full collection of Python's garbage, as happens by itself sooner or later.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tests.proc import children, pool_processes
from warm import of_pool, private_mb, pss_mb, replace_worker, show

from compilepool import CompilePool

WORKERS = 8
KILLED = 10
NAP_S = 0.5
PRELOAD = "compilepool_bench_preload"
# What `torch/_inductor/compile_worker/__main__.py` does before it makes workers.
PRELOAD_SOURCE = """\
import torch._inductor.compile_worker.__main__
from torch._inductor.async_compile import pre_fork_setup
pre_fork_setup()
"""
# A nap is long enough for each worker to get one. It is text for `eval`, because PyTorch's pool
# cannot send lambdas.
NAP = f"(__import__('time').sleep({NAP_S}), __import__('os').getpid())[1]"
COMPILE = (
    "(__import__('compilepool.cli.demo.compilation', fromlist=['_']).compile_variant("
    f"__import__('compilepool.cli.demo.variants', fromlist=['_']).VARIANTS[0]), {NAP})[1]"
)
COLLECT = f"(__import__('gc').collect(), {NAP})[1]"

Submit = Callable[[Callable[..., Any], str], "Future[Any]"]


class Usage(NamedTuple):
    """Memory in MB: PSS of a worker, its private memory, and PSS of all processes."""

    worker: float
    private: float
    everything: float


class Found(NamedTuple):
    """The measurements of one start of one pool."""

    ready_s: float
    first: Usage
    compiled: Usage
    collected: Usage
    replaced_s: Sequence[float] = ()


def on_all(submit: Submit, job: str) -> None:
    """Run a job once on each worker."""
    pids = {future.result() for future in [submit(eval, job) for _ in range(WORKERS)]}
    if len(pids) != WORKERS:
        sys.exit(f"expected {WORKERS} workers to run a job each, not {len(pids)}")


def usage(workers: Sequence[int]) -> Usage:
    if len(workers) != WORKERS:
        sys.exit(f"expected {WORKERS} workers, not {workers}")
    return Usage(pss_mb(workers) / WORKERS, private_mb(workers) / WORKERS, pss_mb(of_pool()))


def measure(began: float, submit: Submit, workers: Callable[[], list[int]]) -> Found:
    on_all(submit, NAP)
    ready_s = time.monotonic() - began - NAP_S
    usages = [usage(workers())]
    for job in (COMPILE, COLLECT):
        on_all(submit, job)
        usages.append(usage(workers()))
    return Found(ready_s, *usages)


def ours() -> Found:
    began = time.monotonic()
    with CompilePool(WORKERS, preload=[PRELOAD]) as pool:
        pool.wait_ready()
        found = measure(began, pool.submit, lambda: pool_processes("worker"))
        return found._replace(replaced_s=[replace_worker(pool) for _ in range(KILLED)])


def theirs() -> Found:
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    began = time.monotonic()
    pool = SubprocPool(WORKERS)
    try:
        pool.wakeup()
        return measure(began, pool.submit, lambda: children(pool.process.pid))
    finally:
        pool.shutdown()


@contextlib.contextmanager
def preloadable() -> Iterator[None]:
    """Within the block, workers can import the preload module, and compile without caches."""
    # Otherwise PyTorch starts a pool of its own in each process that imports Inductor.
    os.environ["TORCH_WARM_POOL"] = "0"
    os.environ["TRITON_ALWAYS_COMPILE"] = "1"
    os.environ["PYTHONWARNINGS"] = "ignore"
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        Path(folder, f"{PRELOAD}.py").write_text(PRELOAD_SOURCE)
        sys.path.append(folder)
        yield
        sys.path.remove(folder)


def show_usage(what: str, usages: Sequence[Usage]) -> None:
    cells = [f"{median(column):9.1f}" for column in zip(*usages, strict=True)]
    print(f"{what:45} {' '.join(cells)}", flush=True)


def compare(runs: int) -> None:
    """Measure both pools, in turns, and print the results."""
    pools = {"compilepool": ours, "PyTorch": theirs}
    found: dict[str, list[Found]] = {name: [] for name in pools}
    with preloadable():
        # Imported before the first pool: otherwise, only workers of later pools would share these
        # pages with the client.
        import torch._inductor.compile_worker.subproc_pool  # noqa: F401

        for run in range(runs):
            for name in list(pools)[:: -1 if run % 2 else 1]:
                found[name].append(pools[name]())
    print(f"{f'MB, {WORKERS} workers':45} a worker   private everything")
    for name, each in found.items():
        show_usage(f"{name}, after a job each", [one.first for one in each])
        show_usage(f"{name}, after a compilation each", [one.compiled for one in each])
        show_usage(f"{name}, after a collection each", [one.collected for one in each])
    print(f"{'ms':45}     min  median     max")
    for name, each in found.items():
        show(f"{name}, until {WORKERS} are ready", [one.ready_s for one in each])
    replaced = [seconds for one in found["compilepool"] for seconds in one.replaced_s]
    show("killed idle worker until another is ready", replaced)
