"""Where Inductor gets its pool, and how that is changed: by what it has, not by its version."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any, Protocol

from compilepool.integrations.torch.takeover.when_imported import WhenImported

ASYNC_COMPILE = "torch._inductor.async_compile"

_RETIRE_S = 60.0
_GRACE_S = 1.0

_log = logging.getLogger(__name__)


class UnsupportedTorch(RuntimeError):
    """This torch has no place for another pool."""


class PoolSource(Protocol):
    """Where the pool comes from."""

    def process_pool(self) -> Any:
        """The pool; the same one until it has been shut down."""

    def forget_pool(self) -> None:
        """Inductor has shut the pool down."""

    def end(self) -> None:
        """Nobody wants it any more."""


class Takeover:
    """Has Inductor use another pool, until `undo`: at once, or as soon as it is imported.

    Args:
        source: where the pool comes from. May be set anew.

    Raises:
        UnsupportedTorch: it is imported, and has no place for the pool. (If it is imported later,
            that is a RuntimeWarning.)
    """

    def __init__(self, source: PoolSource) -> None:
        self.source = source
        self._undo: Callable[[], None] = _do_nothing
        module = sys.modules.get(ASYNC_COMPILE)
        if module is None:
            hook = WhenImported(ASYNC_COMPILE, self._imported)
            self._undo = hook.cancel
        else:
            if getattr(module.__spec__, "_initializing", False):  # another thread imports it
                module = importlib.import_module(ASYNC_COMPILE)
            self._undo = take_over(module, self._process_pool, self._forget_pool)

    def undo(self) -> None:
        """Inductor makes its own pool again, when it next needs one."""
        undo, self._undo = self._undo, _do_nothing
        undo()

    def _imported(self, module: ModuleType) -> None:
        try:
            self._undo = take_over(module, self._process_pool, self._forget_pool)
        except UnsupportedTorch as error:
            self._undo = _do_nothing
            warnings.warn(f"{error}. Inductor goes on with its own", RuntimeWarning, 2)
            self.source.end()

    def _process_pool(self) -> Any:
        return self.source.process_pool()

    def _forget_pool(self) -> None:
        self.source.forget_pool()


def take_over(
    async_compile: Any, process_pool: Callable[[], Any], forget_pool: Callable[[], None]
) -> Callable[[], None]:
    """Have the class `AsyncCompile` of a module use another pool.

    Args:
        async_compile: torch/_inductor/async_compile.py, imported.
        process_pool: what it calls for the pool.
        forget_pool: what it calls when it has shut the pool down, or was forked.

    Returns:
        Undoes that.

    Raises:
        UnsupportedTorch: it has no such places.
    """
    _check(async_compile)
    try:
        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool
    except (ImportError, AttributeError) as error:
        raise UnsupportedTorch(_unsupported(str(error))) from error
    inductor = async_compile.AsyncCompile
    its_process_pool, its_class = vars(inductor)["process_pool"], async_compile.SubprocPool

    def undo() -> None:
        inductor.process_pool = its_process_pool
        inductor._ready_future = None
        async_compile.SubprocPool = its_class

    pools = list(async_compile._pool_set)
    async_compile.after_fork()  # "Reset pools to initial state without shutting them down"
    inductor.process_pool = staticmethod(_ProcessPool(process_pool, forget_pool))
    async_compile.SubprocPool = SubprocPool  # AsyncCompile.wakeup wants an instance of it
    if pools:
        # Not here: they may take seconds to start, and end only then.
        threading.Thread(target=_retire, args=(pools,), name="compilepool", daemon=True).start()
    return undo


class _ProcessPool:
    """In place of `AsyncCompile.process_pool`, which is an `lru_cache`."""

    def __init__(self, get: Callable[[], Any], forget: Callable[[], None]) -> None:
        self._get = get
        self.cache_clear = forget

    def __call__(self) -> Any:
        return self._get()


def _check(async_compile: Any) -> None:
    missing = [
        name
        for name in ("AsyncCompile", "SubprocPool", "SubprocException", "_pool_set", "after_fork")
        if not hasattr(async_compile, name)
    ]
    missing += [
        f"AsyncCompile.{name}"
        for name in ("process_pool", "use_process_pool", "wakeup", "_get_ready", "_ready_future")
        if not hasattr(getattr(async_compile, "AsyncCompile", None), name)
    ]
    if missing:
        raise UnsupportedTorch(_unsupported(f"its {ASYNC_COMPILE} has no {', '.join(missing)}"))


def _unsupported(why: str) -> str:
    version = sys.modules["torch"].__version__
    return (
        f"compilepool cannot take the place of the compile workers of torch {version}: {why};"
        " use torch 2.11 or later"
    )


def _retire(pools: list[Any]) -> None:
    """End pools that Inductor has started, when their jobs have ended."""
    time.sleep(_GRACE_S)  # somebody may just be about to submit a job
    for pool in pools:
        try:
            wait(_pending(pool), _RETIRE_S)
            pool.shutdown()
        except Exception:  # noqa: BLE001 - another's pool
            _log.warning("cannot shut down Inductor's own pool", exc_info=True)


def _pending(pool: Any) -> list[Future[Any]]:
    """The futures of a `SubprocPool` of torch that are not done: by 2.15's name, then 2.13's."""
    jobs = getattr(pool, "pending_jobs", None)
    if jobs is not None:
        return [job.future for job in list(jobs.values())]
    return list(getattr(pool, "pending_futures", {}).values())


def _do_nothing() -> None:
    """There is nothing to undo."""
