"""The job of `compilepool demo`: compiles one variant of a kernel, in a worker."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from compilepool import report_phase
from compilepool.cli.demo.variants import Variant

PRELOAD = ("triton", "compilepool.cli.demo.kernels")
"""What `compile_variant` imports; it comes free in a worker that was forked after it."""

H100 = 90
"""The compute capability, times ten."""


@dataclasses.dataclass(frozen=True)
class CompiledVariant:
    """What a worker sends back: Triton's own `CompiledKernel` cannot be pickled.

    Attributes:
        cubin: the machine code, an ELF file.
        seconds: how long the compilation took.
    """

    cubin: bytes
    seconds: float


def compile_variant(variant: Variant) -> CompiledVariant:
    """Compile for an H100. Needs no GPU.

    Args:
        variant: what to compile.

    Returns:
        The machine code.

    Raises:
        ImportError: triton is not installed.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from compilepool.cli.demo import kernels as demo_kernels

    triton.knobs.runtime.add_stages_inspection_hook = _report_stages
    kernel = getattr(demo_kernels, variant.kernel)
    # Without this promise about pointers and sizes there are no wide or asynchronous loads; at a
    # launch, Triton would see it from the arguments' values.
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
    """Have each of Triton's stages (ttir, ttgir, llir, ptx, cubin) report itself as a phase.

    Triton calls this hook without arguments for what it adds to the cache's key, and with the
    backend and its stages before it compiles; see `triton/backends/nvidia/compiler.py`.
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
