"""Kernels of Triton as pickles. A `triton.JITFunction` has locks, so pickle refuses it as it is."""

from __future__ import annotations

import sys

from compilepool.light_typing import Any


def kernel_type() -> type | None:
    """Triton's `JITFunction`; None if this process has no Triton, and so no kernel."""
    return getattr(sys.modules.get("triton.runtime.jit"), "JITFunction", None)


def reduce_kernel(kernel: Any) -> str | tuple[Any, ...]:
    """How a kernel is pickled, for `pickle.Pickler.reducer_override`.

    Returns:
        Its name if it can be imported. Else its function and its options, so that the receiver
        makes it anew, as `@triton.jit` did (triton/runtime/jit.py).
    """
    name: str = kernel.__qualname__
    if kernel.__module__ != "__main__":
        module = sys.modules.get(kernel.__module__)
        if getattr(module, name, None) is kernel:
            return name
    options = (
        kernel.version,
        kernel.do_not_specialize,
        kernel.do_not_specialize_on_alignment,
        kernel.debug,
        kernel.noinline,
        kernel._repr,
        kernel.launch_metadata,
    )
    return type(kernel), (kernel.fn, *options)
