"""The job that compiles a kernel, as a worker runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import compilepool
from compilepool.integrations.torch.worker.gpu import cuda_said_to_be, no_triton_driver
from compilepool.integrations.torch.worker.hooks import CACHE_LOOKUP


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
