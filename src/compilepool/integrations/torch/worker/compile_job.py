"""The job that compiles a kernel, as a worker runs it, and opens no GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import compilepool
from compilepool.integrations.torch.worker.hooks import CACHE_LOOKUP


@contextlib.contextmanager
def cuda_said_to_be(is_available: bool) -> Iterator[None]:
    """Within it, `torch.cuda.is_available` says so, and does not look.

    Some modules ask when they are imported (`runtime/benchmarking.py`, in torch 2.11), and some
    heuristics for each kernel (`_persistent_reduction_configs`).
    """
    import torch

    original = torch.cuda.is_available
    torch.cuda.is_available = lambda: is_available
    try:
        yield
    finally:
        torch.cuda.is_available = original


@contextlib.contextmanager
def no_triton_driver() -> Iterator[None]:
    """Within it, the source of a kernel does not start Triton's driver, as it wants to.

    From 2.14 on, torch prevents that by itself (`triton_helpers.skip_gpu_driver_setup`).
    """
    from torch._inductor.runtime import triton_helpers

    original = triton_helpers.set_driver_to_gpu
    triton_helpers.set_driver_to_gpu = _do_nothing
    try:
        yield
    finally:
        triton_helpers.set_driver_to_gpu = original


def _do_nothing() -> None:
    """In place of a driver."""


def compile_kernel(is_cuda_available: bool, load_kernel: Callable[[], Any], *args: Any) -> Any:
    """Compile a Triton kernel, and open no GPU, unless the kernel asks Triton which one there is.

    Args:
        is_cuda_available: what `torch.cuda.is_available` says in the process that wants the kernel.
        load_kernel: the first argument of `_worker_compile_triton`
            (torch/_inductor/runtime/compile_tasks.py).
        args: the others.

    Returns:
        What that returns.
    """
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    compilepool.report_phase(CACHE_LOOKUP)
    with no_triton_driver(), cuda_said_to_be(is_cuda_available):
        return _worker_compile_triton(load_kernel, *args)
