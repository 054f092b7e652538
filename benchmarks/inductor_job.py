"""A kernel compiled in a worker of any pool, on a machine that has no GPU."""

from __future__ import annotations

from typing import Any


def compile_kernel(name: str, source: str) -> Any:
    """Do what Inductor has workers do, but for Triton's driver, which would want a GPU."""
    import functools

    from torch._inductor.codecache import _load_triton_kernel_from_source
    from torch._inductor.runtime import triton_helpers
    from torch._inductor.runtime.compile_tasks import _worker_compile_triton

    triton_helpers.set_driver_to_gpu = lambda: None
    load = functools.partial(_load_triton_kernel_from_source, name, source)
    return _worker_compile_triton(load, {}, {"use_static_triton_launcher": False})
