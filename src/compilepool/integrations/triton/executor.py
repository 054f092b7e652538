"""`AsyncCompileExecutor`: the executor that `triton.AsyncCompileMode` takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from compilepool.client.options import AS_THE_POOL, AsThePool
from compilepool.client.pool import CompilePool
from compilepool.integrations.triton.kernel_future import KernelFuture
from compilepool.integrations.triton.submit import Limits, submit_kernel
from compilepool.light_typing import Any, lazy_annotations

PRELOAD = "compilepool.integrations.triton.worker.preload"
"""The module that a pool for Triton preloads, so that no worker imports Triton itself."""

_COMPILE = "JITFunction._do_compile.<locals>.async_compile"
"""The function that `AsyncCompileMode` submits (`triton/runtime/jit.py`, 3.4 to 3.9)."""


@lazy_annotations
class AsyncCompileExecutor(Executor):
    """Compiles in workers what `triton.AsyncCompileMode` submits.

    Triton submits a closure over objects that cannot be pickled. So a recipe goes to the worker,
    which compiles into Triton's cache on the disk, and this process loads the kernel from there.
    What is in the cache already needs no worker.

    A kernel that crashes the compiler, or goes over a limit, raises the pool's error at the end of
    the block, or where it is launched. The others are compiled. With
    `AsyncCompileMode(..., ignore_errors=True)`, only a launch raises it.

    Args:
        pool: the pool, best with `preload=[PRELOAD]` and the modules of the kernels. It stays open.
        timeout: the time that a kernel may take, in seconds; None: no limit. Default: the pool's.
        memory_limit: the memory that a kernel may take, in bytes or as text; None: no limit.
            Default: the pool's.
    """

    def __init__(
        self,
        pool: CompilePool,
        *,
        timeout: float | AsThePool | None = AS_THE_POOL,
        memory_limit: int | str | AsThePool | None = AS_THE_POOL,
    ) -> None:
        self._pool = pool
        self._limits = Limits(timeout, memory_limit)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> KernelFuture:
        """Compile a kernel in a worker.

        Args:
            fn: the function that `AsyncCompileMode` submits, without arguments.
            args: none.
            kwargs: none.

        Raises:
            TypeError: this is something else.
            PoolClosed, NestedPoolError, SerializationError: as `CompilePool.submit`.
        """
        if getattr(fn, "__qualname__", "") != _COMPILE or args or kwargs:
            raise TypeError(
                f"AsyncCompileExecutor runs only what triton.AsyncCompileMode submits, not {fn!r};"
                " submit other jobs to the pool itself"
            )
        cells = zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True)
        captured = {name: cell.cell_contents for name, cell in cells}
        options = dict(vars(captured["options"]))
        return submit_kernel(
            self._pool, self._limits, captured["src"], captured["target"], options, fn
        )
