"""`submit_kernel`: how a kernel gets into a pool."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.client.options import AS_THE_POOL, AsThePool
from compilepool.client.pool import CompilePool
from compilepool.integrations.triton.kernel_future import KernelFuture
from compilepool.integrations.triton.recipe import Recipe, environment, is_cached
from compilepool.integrations.triton.worker.compile_job import compile_kernel
from compilepool.light_typing import Any, NamedTuple, lazy_annotations


@lazy_annotations
class Limits(NamedTuple):
    """What each kernel may take, as in `CompilePool.options`."""

    timeout: float | AsThePool | None = AS_THE_POOL
    memory_limit: int | str | AsThePool | None = AS_THE_POOL


@lazy_annotations
def submit_kernel(
    pool: CompilePool,
    limits: Limits,
    source: Any,
    target: Any,
    options: dict[str, Any],
    load: Callable[[], Any],
) -> KernelFuture:
    """Compile a kernel in a worker, unless it is in Triton's cache.

    Args:
        pool: the pool.
        limits: the limits of the job.
        source: the `ASTSource`.
        target: the `GPUTarget`.
        options: those of the backend.
        load: `triton.compile` for this kernel.

    Raises:
        PoolClosed, NestedPoolError, SerializationError: as `CompilePool.submit`.
    """
    recipe = Recipe.of(source, target, options)
    name = recipe.name()
    if is_cached(source, target, options):
        return KernelFuture(name, load, None)
    job = pool.options(name=name, env=environment(), **limits._asdict()).submit(
        compile_kernel, recipe
    )
    return KernelFuture(name, load, job)
