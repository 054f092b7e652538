"""`compile_many` and `compile_ptx_many`: submit one job for each function and signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from numba.core import sigutils
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

from compilepool.client.pool import CompilePool
from compilepool.integrations.numba.cache_entry import CacheEntry
from compilepool.integrations.numba.functions import ImportableFunction, portable
from compilepool.integrations.numba.worker import compile_job
from compilepool.light_typing import TYPE_CHECKING, Any, lazy_annotations

if TYPE_CHECKING:
    from compilepool.client.future import CompileFuture

PRELOAD = "compilepool.integrations.numba.worker.preload"
"""The module that a pool for Numba preloads, so that no worker prepares Numba itself."""


@lazy_annotations
def compile_many(
    jobs: Iterable[tuple[Callable[..., Any], Any]], *, pool: CompilePool | None = None
) -> list[CompileFuture[bool]]:
    """Compile functions in worker processes, into Numba's cache on the disk.

    Wait for the futures before you call the functions: until then, the cache may not have them.
    This process loads from the cache what it calls first after that.

    A job that crashes, or goes over a limit of the pool, fails alone. The cache stays whole, also
    if a worker is killed while it writes.

    Args:
        jobs: functions with the signature that each is to be compiled for. A function is one that
            `numba.njit(cache=True)` or `numba.jit(cache=True)` has decorated. A signature is what
            Numba takes: a tuple of types, or text such as "(f8[::1], i8)". If it names the type of
            the result, Numba must infer the same.
        pool: the pool to compile in, best with `preload=[PRELOAD]` and the modules of the
            functions. None: one that imports them itself, with a worker for each CPU, and that ends
            after these jobs.

    Returns:
        A future for each job, in this order. Its result tells whether the function was compiled;
        False: it was in the cache.

    Raises:
        TypeError: something is no jitted function, or no signature.
        ValueError: a function has no cache.
        PoolClosed, NestedPoolError, SerializationError: as `CompilePool.submit`.
    """
    todo = [(function, *_checked(function, signature)) for function, signature in jobs]
    sent = [portable(function) for function, _, _ in todo]
    if pool is None:
        modules = {each.module for each in sent if isinstance(each, ImportableFunction)}
        pool = CompilePool(preload=[PRELOAD, *sorted(modules)])
    return [
        pool.options(name=_name(function, types)).submit(
            compile_job.compile_into_cache, portable_one, types, returns, CacheEntry.of(function)
        )
        for (function, types, returns), portable_one in zip(todo, sent, strict=True)
    ]


@lazy_annotations
def compile_ptx_many(
    jobs: Iterable[tuple[Callable[..., Any], Any]],
    *,
    cc: tuple[int, int],
    pool: CompilePool | None = None,
    **options: Any,
) -> list[CompileFuture[tuple[str, Any]]]:
    """Compile Python functions to PTX in worker processes. It needs numba-cuda, but no GPU.

    Args:
        jobs: functions with the signature that each is to be compiled for, as for
            `numba.cuda.compile_ptx`. Functions that `numba.cuda.jit` has decorated are fine.
        cc: the compute capability of the GPU, such as (9, 0).
        pool: the pool to compile in, best with `preload=["numba.cuda"]`. None: one with a worker
            for each CPU, that ends after these jobs.
        options: the other options of `numba.cuda.compile_ptx`, such as `device` and `abi`.

    Returns:
        A future for each job, in this order. Its result is what `numba.cuda.compile_ptx` returns:
        the PTX, and the type that the function returns.

    Raises:
        TypeError: something is no function, or no signature.
        PoolClosed, NestedPoolError, SerializationError: as `CompilePool.submit`.
    """
    todo = []
    for function, signature in jobs:
        plain = getattr(function, "py_func", function)
        if not callable(plain):
            raise TypeError(f"compile_ptx_many needs functions, not {function!r}")
        sigutils.normalize_signature(signature)
        todo.append((plain, signature))
    if pool is None:
        pool = CompilePool(preload=["numba.cuda"])
    return [
        pool.options(name=f"{function.__qualname__} for sm_{cc[0]}{cc[1]}").submit(
            compile_job.compile_ptx, function, signature, cc, options
        )
        for function, signature in todo
    ]


def _checked(function: Any, signature: Any) -> tuple[tuple[Any, ...], Any]:
    """The types of the arguments, and of the result; None: not given."""
    if not isinstance(function, Dispatcher):
        raise TypeError(f"compile_many needs functions that numba.njit has made, not {function!r}")
    if isinstance(function._cache, NullCache):
        raise ValueError(
            f"{function.__qualname__} has no cache to compile into; decorate it with"
            " numba.njit(cache=True)"
        )
    types, returns = sigutils.normalize_signature(signature)
    return tuple(types), returns


def _name(function: Any, types: Sequence[Any]) -> str:
    return f"{function.__qualname__}({', '.join(map(str, types))})"
