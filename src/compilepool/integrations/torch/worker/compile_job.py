"""The job that compiles a kernel in a worker, without opening a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
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


@contextlib.contextmanager
def nothing_left_set(extra_env: Mapping[str, str | None]) -> Iterator[None]:
    """After the block, the environment is as before: the next job may be another program's.

    `_worker_compile_triton` sets the variables of its job, and a knob of Triton's by one of them. A
    `CachingAutotuner` sets `TRITON_CACHE_DIR` to a folder of its own device, unless it is set.

    Args:
        extra_env: the variables that `_worker_compile_triton` gets.
    """
    from triton import knobs

    before = {name: os.environ.get(name) for name in (*_CACHES, *extra_env)}
    knobs_before = dict(vars(knobs.nvidia))
    try:
        yield
    finally:
        vars(knobs.nvidia).clear()
        vars(knobs.nvidia).update(knobs_before)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def compile_kernel(
    is_cuda_available: bool,
    load_kernel: Callable[[], Any],
    extra_env: Mapping[str, str | None],
    *args: Any,
) -> Any:
    """Compile a Triton kernel. No GPU is opened unless the kernel itself asks Triton for one.

    Args:
        is_cuda_available: the answer of `torch.cuda.is_available` in the client.
        load_kernel: the first argument of `_worker_compile_triton`
            (torch/_inductor/runtime/compile_tasks.py).
        extra_env: its second argument.
        args: its other arguments.

    Returns:
        The result of `_worker_compile_triton`.
    """
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    compilepool.report_phase(CACHE_LOOKUP)
    with nothing_left_set(extra_env), no_triton_driver(), cuda_said_to_be(is_cuda_available):
        return _worker_compile_triton(load_kernel, extra_env, *args)
