"""The pools that are compared. As far as possible, each has the methods `submit` and `shutdown`.

This module imports nothing at its top, since the imports of a pool are part of its cold start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

NAMES = ("compilepool", "fork", "forkserver", "spawn", "loky", "pebble", "torch")
"""fork, forkserver and spawn are the standard library's `ProcessPoolExecutor`."""

_MODULES = {"loky": "loky", "pebble": "pebble", "torch": "torch"}


def missing(name: str) -> str:
    """Return the reason why a pool cannot take part; "" if it can."""
    import importlib.util

    module = _MODULES.get(name)
    if module is None or importlib.util.find_spec(module):
        return ""
    return f"{module} is not installed"


def make(name: str, workers: int, preload: Sequence[str] = ()) -> Any:
    """Make a pool that has run no job yet.

    Args:
        name: the name of the pool.
        workers: the number of jobs that it runs at once.
        preload: modules that its workers should have imported, for pools with such an option.
            (Workers that are forked from the client have what the client has imported.)
    """
    if name == "compilepool":
        from compilepool import CompilePool

        return CompilePool(workers, preload=list(preload))
    if name == "loky":
        from loky import ProcessPoolExecutor as LokyExecutor

        return LokyExecutor(workers)
    if name == "pebble":
        return _Pebble(workers)
    if name == "torch":
        from torch._inductor.compile_worker.subproc_pool import SubprocPool

        return SubprocPool(workers)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context(name)
    if name == "forkserver" and preload:
        context.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(workers, mp_context=context)


class _Pebble:
    """Gives pebble's pool, which is no executor, the methods of one."""

    def __init__(self, workers: int) -> None:
        import multiprocessing

        from pebble import ProcessPool

        self._pool = ProcessPool(workers, context=multiprocessing.get_context("fork"))

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.schedule(function, args=args)

    def shutdown(self) -> None:
        self._pool.close()
        self._pool.join()
