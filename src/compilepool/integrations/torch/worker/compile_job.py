"""The job that compiles a kernel in a worker, without opening a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import compilepool
from compilepool.integrations.torch.worker.hooks import CACHE_LOOKUP


@contextlib.contextmanager
def cuda_said_to_be(is_available: bool) -> Iterator[None]:
    """Within the block, `torch.cuda.is_available` returns a given answer and does not look.

    Some modules ask at their import (`runtime/benchmarking.py` of torch 2.11). Some heuristics ask
    for each kernel (`_persistent_reduction_configs`).

    Args:
        is_available: the answer.
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
    """Within the block, loading the source of a kernel does not start Triton's driver.

    torch 2.14 and later prevents the start by itself (`triton_helpers.skip_gpu_driver_setup`).
    """
    from torch._inductor.runtime import triton_helpers

    original = triton_helpers.set_driver_to_gpu
    triton_helpers.set_driver_to_gpu = _do_nothing
    try:
        yield
    finally:
        triton_helpers.set_driver_to_gpu = original


def _do_nothing() -> None:
    """Replaces `triton_helpers.set_driver_to_gpu`."""


def compile_kernel(is_cuda_available: bool, load_kernel: Callable[[], Any], *args: Any) -> Any:
    """Compile a Triton kernel. No GPU is opened unless the kernel itself asks Triton for one.

    Args:
        is_cuda_available: the answer of `torch.cuda.is_available` in the client.
        load_kernel: the first argument of `_worker_compile_triton`
            (torch/_inductor/runtime/compile_tasks.py).
        args: the other arguments of it.

    Returns:
        The result of `_worker_compile_triton`.
    """
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    compilepool.report_phase(CACHE_LOOKUP)
    with no_triton_driver(), cuda_said_to_be(is_cuda_available):
        return _worker_compile_triton(load_kernel, *args)
