"""`compile_many`: compiles kernels ahead of time, without a GPU."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import triton
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction
from triton.runtime.jit import JITFunction

from compilepool.client.options import AS_THE_POOL, AsThePool
from compilepool.client.pool import CompilePool
from compilepool.integrations.triton.executor import PRELOAD
from compilepool.integrations.triton.kernel_future import KernelFuture
from compilepool.integrations.triton.submit import Limits, submit_kernel
from compilepool.light_typing import Any, lazy_annotations

_DIVISIBLE = ":16"
"""What a type ends with if the argument is divisible by 16, as in `triton.tools.compile`."""


@lazy_annotations
def compile_many(
    kernels: Iterable[tuple[Any, Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]],
    *,
    target: Any,
    pool: CompilePool | None = None,
    timeout: float | AsThePool | None = AS_THE_POOL,
    memory_limit: int | str | AsThePool | None = AS_THE_POOL,
) -> list[KernelFuture]:
    """Compile kernels in worker processes, into Triton's cache on the disk. It needs no GPU.

        compile_many(
            [(add, {"x": "*fp32:16", "n": "i32"}, {"BLOCK": 128}, {"num_warps": 4})],
            target=GPUTarget("cuda", 90, 32),
        )

    A program finds the kernels in the cache if its launches have the same types, constants and
    options, and are for the same target.

    Args:
        kernels: for each kernel: what `@triton.jit`, or `@triton.autotune` above it, has made; the
            type of each argument that is no constant, such as "*fp16", "i32" or `tl.float32`, with
            ":16" at its end if a pointer or a number is divisible by 16; the constants; and options
            such as `num_warps`.
        target: the `triton.backends.compiler.GPUTarget`.
        pool: the pool to compile in, best with `preload=[PRELOAD]` and the modules of the kernels.
            None: a new one with a worker for each CPU, which ends after these jobs.
        timeout: the time that a kernel may take, in seconds; None: no limit. Default: the pool's.
        memory_limit: the memory that a kernel may take, in bytes or as text; None: no limit.
            Default: the pool's.

    Returns:
        A future for each kernel, in this order. Its result is Triton's `CompiledKernel`, with the
        machine code in `asm`. A kernel that fails leaves the others.

    Raises:
        TypeError: something is no kernel.
        ValueError: arguments of a kernel are missing, or unknown.
        PoolClosed, NestedPoolError, SerializationError: as `CompilePool.submit`.
    """
    sources = [
        (_source(_innermost(kernel), signature, constants), dict(options))
        for kernel, signature, constants, options in kernels
    ]
    if pool is None:
        pool = CompilePool(preload=[PRELOAD])
    limits = Limits(timeout, memory_limit)
    return [
        submit_kernel(
            pool,
            limits,
            source,
            target,
            options,
            functools.partial(triton.compile, source, target=target, options=options),
        )
        for source, options in sources
    ]


def _innermost(kernel: Any) -> Any:
    """The `JITFunction` below `@triton.autotune` and `@triton.heuristics`."""
    found = kernel
    while not isinstance(found, JITFunction):
        if not hasattr(found, "fn"):
            raise TypeError(f"compile_many needs what @triton.jit has made, not {kernel!r}")
        found = found.fn
    return found


def _source(kernel: Any, signature: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    wanted, given = set(kernel.arg_names), {*signature, *constants}
    if wanted != given or signature.keys() & constants.keys():
        problems = {
            "without a type or a value": wanted - given,
            "unknown": given - wanted,
            "with a type and a value": signature.keys() & constants.keys(),
        }
        text = "; ".join(
            f"{what}: {', '.join(sorted(which))}" for what, which in problems.items() if which
        )
        raise ValueError(f"the arguments of kernel {kernel.__name__} are wrong; {text}")
    types = {name: str(type_) for name, type_ in signature.items()}
    divisible = [["tt.divisibility", 16]]
    attributes = {
        (kernel.arg_names.index(name),): divisible
        for name, type_ in types.items()
        if type_.endswith(_DIVISIBLE)
    }
    plain = {name: type_.removesuffix(_DIVISIBLE) for name, type_ in types.items()}
    make = GluonASTSource if isinstance(kernel, GluonJITFunction) else ASTSource
    in_order = {name: plain.get(name, "constexpr") for name in kernel.arg_names}
    return make(kernel, in_order, dict(constants), attributes)
