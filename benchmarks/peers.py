"""The pools that are compared, as far as possible by the same two methods: submit and shutdown.

Imports nothing at its top: what a pool imports is part of its cold start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

NAMES = ("compilepool", "fork", "forkserver", "spawn", "loky", "pebble", "torch")
"""fork, forkserver and spawn are the standard library's ProcessPoolExecutor."""

_MODULES = {"loky": "loky", "pebble": "pebble", "torch": "torch"}


def missing(name: str) -> str:
    """Why a peer cannot take part; empty if it can."""
    import importlib.util

    module = _MODULES.get(name)
    if module is None or importlib.util.find_spec(module):
        return ""
    return f"{module} is not installed"


def make(name: str, workers: int, preload: Sequence[str] = ()) -> Any:
    """A pool that has not been used.

    Args:
        name: whose.
        workers: how many jobs it runs at once.
        preload: what its workers are to have imported, where it has an option for that. (Those that
            fork the client have what the client has imported.)
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
    """The one that is no executor."""

    def __init__(self, workers: int) -> None:
        import multiprocessing

        from pebble import ProcessPool

        self._pool = ProcessPool(workers, context=multiprocessing.get_context("fork"))

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.schedule(function, args=args)

    def shutdown(self) -> None:
        self._pool.close()
        self._pool.join()
