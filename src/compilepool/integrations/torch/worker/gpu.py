"""Keeps Inductor from opening the GPU where it only compiles: it would, and need not.

A process that has opened one cannot be forked, and to open it takes a second in each worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


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
