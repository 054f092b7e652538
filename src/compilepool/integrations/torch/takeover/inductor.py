"""Patches Inductor's `AsyncCompile`, so that it uses another pool.

The patch checks which attributes this torch has, not its version.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any, Protocol

from compilepool.any_process.when_imported import WhenImported
from compilepool.integrations.torch.takeover.worker_mode import watch_worker_mode

ASYNC_COMPILE = "torch._inductor.async_compile"

_RETIRE_S = 60.0
"""The longest time to wait for the jobs of a pool that Inductor started, in seconds."""
_GRACE_S = 1.0
"""The time before such a pool is shut down, in seconds: a thread may be about to submit a job."""

_log = logging.getLogger(__name__)


class UnsupportedTorch(RuntimeError):
    """This version of torch lacks the attributes by which another pool can be put in place."""


class PoolSource(Protocol):
    """The owner of the pool that Inductor uses.

    Attributes:
        takes_all_modes: whether the pool gets Triton kernels whatever Inductor's worker mode is.
    """

    takes_all_modes: bool

    def process_pool(self) -> Any:
        """Return the pool, the same one until Inductor has shut it down."""

    def forget_pool(self) -> None:
        """Forget the pool, because Inductor has shut it down."""

    def end(self) -> None:
        """End the pool, because nobody can use it."""


class Takeover:
    """Makes Inductor use the pool of a source, until `undo`.

    The patch is applied at once if Inductor is imported, and otherwise right after its import.

    Args:
        source: the owner of the pool. The attribute may be set to another source later.

    Raises:
        UnsupportedTorch: Inductor is imported and lacks the places for the patch. If it is imported
            later, this is a RuntimeWarning.
    """

    def __init__(self, source: PoolSource) -> None:
        self.source = source
        self._undo: Callable[[], None] = _do_nothing
        module = sys.modules.get(ASYNC_COMPILE)
        if module is None:
            hook = WhenImported(ASYNC_COMPILE, self._imported)
            self._undo = hook.cancel
        else:
            if getattr(module.__spec__, "_initializing", False):  # another thread imports it now
                module = importlib.import_module(ASYNC_COMPILE)
            self._undo = self._take_over(module)

    def undo(self) -> None:
        """Remove the patch: Inductor makes a pool of its own when it next needs one."""
        undo, self._undo = self._undo, _do_nothing
        undo()

    def _imported(self, module: ModuleType) -> None:
        try:
            self._undo = self._take_over(module)
        except UnsupportedTorch as error:
            self._undo = _do_nothing
            warnings.warn(f"{error}. Inductor goes on with its own", RuntimeWarning, 2)
            self.source.end()

    def _take_over(self, module: ModuleType) -> Callable[[], None]:
        undo_mode = watch_worker_mode(module, lambda: self.source.takes_all_modes)
        try:
            undo_pool = take_over(module, self._process_pool, self._forget_pool)
        except BaseException:
            undo_mode()
            raise

        def undo() -> None:
            undo_mode()
            undo_pool()

        return undo

    def _process_pool(self) -> Any:
        return self.source.process_pool()

    def _forget_pool(self) -> None:
        self.source.forget_pool()


def take_over(
    async_compile: Any, process_pool: Callable[[], Any], forget_pool: Callable[[], None]
) -> Callable[[], None]:
    """Patch the class `AsyncCompile` of a module, so that it uses another pool.

    Args:
        async_compile: the module torch/_inductor/async_compile.py.
        process_pool: a function that returns the pool.
        forget_pool: a function that is called after Inductor has shut the pool down or was forked.

    Returns:
        A function that removes the patch.

    Raises:
        UnsupportedTorch: the module lacks the places for the patch.
    """
    _check(async_compile)
    try:
        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool
        from compilepool.integrations.torch.takeover.cpp_jobs import take_over_cpp
    except (ImportError, AttributeError) as error:
        raise UnsupportedTorch(_unsupported(str(error))) from error
    inductor = async_compile.AsyncCompile
    its_process_pool, its_class = vars(inductor)["process_pool"], async_compile.SubprocPool

    def undo() -> None:
        undo_cpp()
        inductor.process_pool = its_process_pool
        inductor._ready_future = None
        async_compile.SubprocPool = its_class

    pools = list(async_compile._pool_set)
    # Its docstring: "Reset pools to initial state without shutting them down".
    async_compile.after_fork()
    inductor.process_pool = staticmethod(_ProcessPool(process_pool, forget_pool))
    undo_cpp = take_over_cpp(inductor)
    async_compile.SubprocPool = SubprocPool  # AsyncCompile.wakeup checks isinstance of it
    if pools:
        # In a thread: such a pool may take seconds to start, and ends only after that.
        threading.Thread(target=_retire, args=(pools,), name="compilepool", daemon=True).start()
    return undo


class _ProcessPool:
    """Replaces `AsyncCompile.process_pool`, with all that a `functools.lru_cache(1)` has."""

    def __init__(self, get: Callable[[], Any], forget: Callable[[], None]) -> None:
        self.__wrapped__ = get
        self._forget = forget
        self._lock = threading.Lock()
        self._last: weakref.ref[Any] | None = None
        self._hits = self._misses = 0

    def __call__(self) -> Any:
        pool = self.__wrapped__()
        with self._lock:
            if self._last is not None and self._last() is pool:
                self._hits += 1
            else:
                self._misses += 1
                self._last = weakref.ref(pool)
        return pool

    def cache_info(self) -> Any:
        """How often a pool was asked for: as `functools.lru_cache` counts it."""
        is_full = self._last is not None and self._last() is not None
        return functools._CacheInfo(self._hits, self._misses, 1, int(is_full))

    def cache_parameters(self) -> dict[str, Any]:
        """As `functools.lru_cache` has it."""
        return {"maxsize": 1, "typed": False}

    def cache_clear(self) -> None:
        """Forget the pool, and begin to count anew."""
        self._forget()
        with self._lock:
            self._last, self._hits, self._misses = None, 0, 0


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
    """Shut down pools that Inductor has started, after their jobs have ended."""
    time.sleep(_GRACE_S)
    for pool in pools:
        try:
            wait(_pending(pool), _RETIRE_S)
            pool.shutdown()
        except Exception:  # noqa: BLE001 - torch's code may raise anything
            _log.warning("cannot shut down Inductor's own pool", exc_info=True)


def _pending(pool: Any) -> list[Future[Any]]:
    """Return the unfinished futures of torch's `SubprocPool`.

    torch 2.15 keeps them in `pending_jobs`, torch 2.13 in `pending_futures`.
    """
    jobs = getattr(pool, "pending_jobs", None)
    if jobs is not None:
        return [job.future for job in list(jobs.values())]
    return list(getattr(pool, "pending_futures", {}).values())


def _do_nothing() -> None:
    """Undo nothing, because nothing is patched."""
