"""The pool of Inductor in this process, from `install` to `uninstall`."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

from compilepool.client.cpus import usable_cpus
from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.inductor import ASYNC_COMPILE, Takeover, UnsupportedTorch
from compilepool.integrations.torch.pool_for_torch import CompilerEnv, make_pool
from compilepool.integrations.torch.when_imported import WhenImported

if TYPE_CHECKING:
    from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

OnCrash = Literal["raise", "in_process"]

_MAX_THREADS = 32  # as Inductor (`decide_compile_threads`)

_log = logging.getLogger(__name__)


class Installation:
    """Makes the pool, hands it to Inductor, and makes another one when Inductor has shut it down.

    Args:
        on_crash: see `install`.
        pool_options: likewise.
        is_early: whether the pool starts now, rather than when Inductor asks for it.

    Raises:
        What `CompilePool` raises; ValueError: `on_crash` is wrong; ImportError: there is no torch.
        UnsupportedTorch: torch has been imported, and has no place for the pool.
    """

    def __init__(self, on_crash: str, pool_options: dict[str, Any], *, is_early: bool) -> None:
        if on_crash not in ("raise", "in_process"):
            raise ValueError(f"on_crash must be 'raise' or 'in_process', not {on_crash!r}")
        if importlib.util.find_spec("torch") is None:
            raise ImportError("compilepool is to compile for torch, and there is none: install it")
        self._on_crash: OnCrash = cast(OnCrash, on_crash)
        self._options = pool_options
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._early: CompilePool | None = None
        self._early_env: CompilerEnv | None = None  # of its processes; None: it is not started
        self._pool: SubprocPool | None = None
        self._takeover: Takeover | None = None
        self._hook: WhenImported | None = None
        module = sys.modules.get(ASYNC_COMPILE)
        if module is not None:
            self._takeover = Takeover(module, self.process_pool, self.forget_pool)
        self._early = self._make_pool()  # now, so that wrong options are told now
        if is_early and self._early.max_workers > 1:
            self._early_env = CompilerEnv()
            self._early.warm_up()
        if module is None:
            self._hook = WhenImported(ASYNC_COMPILE, self._take_over)

    @property
    def pool(self) -> CompilePool | None:
        """The pool that compiles; None if there is none now."""
        if self._pool is not None and self._pool.running:
            return self._pool.pool
        return self._early

    def uninstall(self) -> None:
        """Put everything back, and end the pool when its jobs have ended."""
        with self._lock:
            if self._hook is not None:
                self._hook.cancel()
            if self._takeover is not None:
                self._takeover.undo()
            pool, self._pool = self._pool, None
            early, self._early = self._early, None
        if early is not None:
            early.kill_workers()
        if pool is not None:
            pool.pool.shutdown()
            pool.shutdown()

    # What Inductor calls

    def process_pool(self) -> SubprocPool:
        """The pool: in place of `AsyncCompile.process_pool`."""
        if self._pid != os.getpid():
            self.forget_pool()
        with self._lock:
            if self._pool is None or not self._pool.running:
                self._pool = self._start()
            return self._pool

    def forget_pool(self) -> None:
        """Inductor has shut the pool down, or this is a forked child: the next one is another."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.RLock()  # whoever had it is not in this process
            self._early = None
        self._pool = None

    # Under the lock

    def _start(self) -> SubprocPool:
        import torch._inductor.async_compile
        from torch._inductor import config

        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

        pool, self._early = self._early, None
        env, self._early_env = self._early_env, None
        if pool is not None and pool.max_workers != self._threads:
            pool.kill_workers()
            pool = None
        if pool is None:
            pool, env = self._make_pool(), None
        wants_quiesce = config.quiesce_async_compile_pool and "idle_timeout" not in self._options
        subproc_pool = SubprocPool(
            pool.max_workers,
            quiesce=wants_quiesce,
            pool=pool,
            env=env,
            on_crash=self._on_crash,
        )
        torch._inductor.async_compile._pool_set.add(subproc_pool)
        return subproc_pool

    def _make_pool(self) -> CompilePool:
        options = {"start_method": _start_method(), **self._options}
        return make_pool(**{"max_workers": self._threads, **options})

    @property
    def _threads(self) -> int:
        """How many workers there are to be."""
        wanted = self._options.get("max_workers")
        return _compile_threads() if wanted is None else wanted

    def _take_over(self, module: ModuleType) -> None:
        """Inductor has just been imported, maybe long after `install`."""
        with self._lock:
            try:
                self._takeover = Takeover(module, self.process_pool, self.forget_pool)
            except UnsupportedTorch as error:
                warnings.warn(f"{error}. Inductor goes on with its own", RuntimeWarning, 2)
                self.uninstall()


def _compile_threads() -> int:
    """How many workers Inductor wants, also before it is imported."""
    module = sys.modules.get(ASYNC_COMPILE)
    if module is not None:
        return int(module.get_compile_threads())
    text = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "")
    return int(text) if text.isdecimal() else min(_MAX_THREADS, usable_cpus())


def _start_method() -> str:
    """torch knows "subprocess", "fork" and "spawn", of which only the last is of the workers."""
    config = sys.modules.get("torch._inductor.config")
    wanted = os.environ.get("TORCHINDUCTOR_WORKER_START", "")
    if config is not None:
        wanted = config.worker_start_method
    return "spawn" if wanted == "spawn" else "fork"
