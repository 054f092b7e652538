"""The job that compiles a kernel, as a worker runs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import compilepool
from compilepool.integrations.torch.worker.hooks import CACHE_LOOKUP


def compile_kernel(load_kernel: Callable[[], Any], *args: Any) -> Any:
    """Compile a Triton kernel, and touch no GPU.

    Args:
        load_kernel: the first argument of `_worker_compile_triton`
            (torch/_inductor/runtime/compile_tasks.py).
        args: the others.

    Returns:
        What that returns.
    """
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    compilepool.report_phase(CACHE_LOOKUP)
    with _no_gpu_driver():
        return _worker_compile_triton(load_kernel, *args)


@contextlib.contextmanager
def _no_gpu_driver() -> Iterator[None]:
    """The source of a kernel starts Triton's driver, which opens the GPU; to compile needs none.

    From 2.14 on, torch does this by itself (`triton_helpers.skip_gpu_driver_setup`).
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
