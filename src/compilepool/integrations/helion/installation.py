"""`install` and `uninstall`: which pool Helion's autotuner compiles in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from helion.autotuner.precompile_future import PrecompileFuture

from compilepool.client.pool import CompilePool
from compilepool.integrations.helion.pool_precompile import precompile_in
from compilepool.light_typing import Any, lazy_annotations

_PRELOAD = "compilepool.integrations.helion.worker.preload"

_helions_own: Callable[..., PrecompileFuture] = PrecompileFuture.create
_pool: CompilePool | None = None


def install(*, preload: Sequence[str] = (), **pool_options: Any) -> None:
    """Compile the configurations that Helion tries in a `CompilePool`.

    Without it, Helion forks this process for each configuration. With it, workers that have
    imported Helion compile one after another, into Triton's cache, where this process finds what
    it then measures. A configuration fails alone if its worker crashes, or if it takes longer than
    Helion's `autotune_compile_timeout`; all that it has started ends with it. A warning in
    Helion's log has the report.

    The pool starts now, and imports Helion while this process goes on. A pool of an earlier
    `install` is replaced.

    Args:
        preload: modules to preload in addition to Helion.
        pool_options: options of `CompilePool`, such as `max_workers` and `memory_limit`, which
            holds for each configuration.

    Raises:
        TypeError, ValueError, OSError, CompilePoolError: the options are wrong, or the pool cannot
            start; see `CompilePool`.
    """
    global _pool  # noqa: PLW0603
    pool = CompilePool(preload=[_PRELOAD, *preload], **pool_options)
    pool.warm_up()
    uninstall()
    _pool = pool
    PrecompileFuture.create = staticmethod(precompile_in(pool, _helions_own))


def uninstall() -> None:
    """Have Helion fork again. Wait for the jobs of the installed pool, and end it."""
    global _pool
    pool, _pool = _pool, None
    PrecompileFuture.create = staticmethod(_helions_own)
    if pool is not None:
        pool.shutdown()


@lazy_annotations
def current_pool() -> CompilePool | None:
    """Return the pool that is installed, for `stats` and `dump`; None: there is none."""
    return _pool
