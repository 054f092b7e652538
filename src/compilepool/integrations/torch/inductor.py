"""Where Inductor gets its pool, and how that is changed: by what it has, not by its version."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any

ASYNC_COMPILE = "torch._inductor.async_compile"

_RETIRE_S = 60.0

_log = logging.getLogger(__name__)


class UnsupportedTorch(RuntimeError):
    """This torch has no place for another pool."""


class Takeover:
    """Has the class `AsyncCompile` of a module use another pool, until `undo`.

    Args:
        async_compile: torch/_inductor/async_compile.py, imported.
        process_pool: what it calls for the pool.
        forget_pool: what it calls when it has shut the pool down, or was forked.

    Raises:
        UnsupportedTorch: it has no such places.
    """

    def __init__(
        self,
        async_compile: Any,
        process_pool: Callable[[], Any],
        forget_pool: Callable[[], None],
    ) -> None:
        _check(async_compile)
        self._async_compile = async_compile
        self._class = async_compile.AsyncCompile
        self._process_pool = vars(self._class)["process_pool"]
        self._pool_class = async_compile.SubprocPool
        _retire_pools(async_compile)
        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

        self._class.process_pool = staticmethod(_ProcessPool(process_pool, forget_pool))
        self._async_compile.SubprocPool = SubprocPool  # AsyncCompile.wakeup wants an instance of it

    def undo(self) -> None:
        """Inductor makes its own pool again, when it next needs one."""
        self._class.process_pool = self._process_pool
        self._async_compile.SubprocPool = self._pool_class
        self._class._ready_future = None


class _ProcessPool:
    """In place of `AsyncCompile.process_pool`, which is an `lru_cache`."""

    def __init__(self, get: Callable[[], Any], forget: Callable[[], None]) -> None:
        self._get = get
        self.cache_clear = forget

    def __call__(self) -> Any:
        return self._get()


def torch_version() -> str:
    """That of torch, which is imported."""
    return str(sys.modules["torch"].__version__)


def _check(async_compile: ModuleType) -> None:
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
    exception = getattr(async_compile, "SubprocException", None)
    if not hasattr(exception, "with_name"):
        missing.append("SubprocException.with_name")
    if missing:
        raise UnsupportedTorch(
            f"compilepool cannot take the place of the compile workers of torch {torch_version()}:"
            f" its {ASYNC_COMPILE} has no {', '.join(missing)}; use torch 2.11 or later"
        )


def _retire_pools(async_compile: ModuleType) -> None:
    """End the pools that Inductor has started, when their jobs have ended.

    Not here: theirs may take seconds to start, and end only then.
    """
    pools = list(async_compile._pool_set)
    async_compile.after_fork()  # "Reset pools to initial state without shutting them down"
    if pools:
        threading.Thread(target=_retire, args=(pools,), name="compilepool", daemon=True).start()


def _retire(pools: list[Any]) -> None:
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
