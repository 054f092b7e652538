"""Compiles one variant of a kernel, in a worker."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from compilepool import report_phase
from compilepool.cli.demo.variants import Variant

PRELOAD = ("triton", "compilepool.cli.demo.kernels")
"""The modules that `compile_variant` imports. A worker forked after their import has them."""

H100 = 90
"""The compute capability of the H100, 9.0, times ten."""


@dataclasses.dataclass(frozen=True)
class CompiledVariant:
    """The result that a worker sends back. Triton's own `CompiledKernel` cannot be pickled.

    Attributes:
        cubin: the machine code, an ELF file.
        seconds: the duration of the compilation.
    """

    cubin: bytes
    seconds: float


def compile_variant(variant: Variant) -> CompiledVariant:
    """Compile a variant for an H100. Needs no GPU.

    Args:
        variant: the variant.

    Returns:
        The machine code and the duration.

    Raises:
        ImportError: triton is not installed.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from compilepool.cli.demo import kernels

    triton.knobs.runtime.add_stages_inspection_hook = _report_stages
    kernel = getattr(kernels, variant.kernel)
    # Triton emits wide and asynchronous loads only if pointers and sizes are divisible by 16. At a
    # launch, it would see that from the arguments' values.
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
        for name, type_ in variant.arguments.items()
        if type_ == "i32" or type_.startswith("*")
    }
    source = ASTSource(
        fn=kernel,
        signature={**variant.arguments, **dict.fromkeys(variant.constants, "constexpr")},
        constexprs=dict(variant.constants),
        attrs=aligned,
    )
    start = time.perf_counter()
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", H100, 32),
        options={"num_warps": variant.num_warps, "num_stages": variant.num_stages},
    )
    seconds = time.perf_counter() - start
    return CompiledVariant(compiled.asm["cubin"], seconds)


def _report_stages(*arguments: Any) -> tuple[str, str] | None:
    """Make each of Triton's stages (ttir, ttgir, llir, ptx, cubin) report itself as a phase.

    Triton calls this hook in two ways: without arguments, for a string to add to the cache key, and
    with the backend and its stages, before it compiles (`triton/backends/nvidia/compiler.py`).
    """
    if not arguments:
        return "compilepool-demo", "compilepool-demo"
    _backend, stages, *_ = arguments
    for name, stage in list(stages.items()):
        stages[name] = functools.partial(_run_stage, name, stage)
    return None


def _run_stage(name: str, stage: Callable[[Any, Any], Any], source: Any, metadata: Any) -> Any:
    report_phase(name)
    return stage(source, metadata)
