"""The pool of Inductor in this process, from `install` to `uninstall`."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.compile_worker.timer import Timer
from compilepool.integrations.torch.takeover.pool_for_torch import EnvAtStart, OnCrash, make_pool

if TYPE_CHECKING:
    from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

_MAX_THREADS = 32  # as Inductor (`decide_compile_threads`)
_UNUSED_S = 600.0
"""After so many seconds a pool that Inductor has not asked for sleeps: nobody compiles here."""


class Installation:
    """Makes the pool, and another one when Inductor has shut it down.

    Args:
        on_crash: see `install`.
        pool_options: likewise.
        is_early: whether the pool starts now, rather than when Inductor asks for it.

    Raises:
        What `CompilePool` raises; ValueError: `on_crash` is wrong; ImportError: there is no torch.
    """

    def __init__(self, on_crash: str, pool_options: dict[str, Any], *, is_early: bool) -> None:
        if on_crash not in ("raise", "in_process"):
            raise ValueError(f"on_crash must be 'raise' or 'in_process', not {on_crash!r}")
        if importlib.util.find_spec("torch") is None:
            raise ImportError("compilepool is to compile for torch, and there is none: install it")
        self._on_crash: OnCrash = cast(OnCrash, on_crash)
        self._options = pool_options
        self._lock = threading.RLock()
        self._early: CompilePool | None = None
        self._early_env: EnvAtStart | None = None
        self._unused: Timer | None = None
        self._pool: SubprocPool | None = None
        if is_early and _compile_threads() > 1:
            self._early_env = EnvAtStart()
            self._early = self._make_pool()
            self._early.warm_up()
            self._unused = Timer(_UNUSED_S, self._early.quiesce)
            self._unused.record_call()
        else:
            # So that wrong options are told now. Without a trace: it would be begun.
            self._make_pool(trace=None)

    @property
    def pool(self) -> CompilePool | None:
        """The pool that compiles; None if there is none now."""
        if self._pool is not None and self._pool.running:
            return self._pool.pool
        return self._early

    def end(self) -> None:
        """End the pool when its jobs have ended."""
        with self._lock:
            pool, self._pool = self._pool, None
            early = self._take_early()
        if early is not None:
            early.kill_workers()
        if pool is not None:
            pool.pool.shutdown()
            pool.shutdown()

    def after_fork(self) -> None:
        """In a child that was forked: the pool is the parent's, and so is whoever has the lock."""
        self._lock = threading.RLock()
        self._early = self._pool = self._unused = None

    # What Inductor calls

    def process_pool(self) -> SubprocPool:
        """The pool: in place of `AsyncCompile.process_pool`."""
        with self._lock:
            if self._pool is None or not self._pool.running:
                self._pool = self._start()
            return self._pool

    def forget_pool(self) -> None:
        """Inductor has shut the pool down: the next one is another."""
        self._pool = None

    # Under the lock

    def _start(self) -> SubprocPool:
        import torch._inductor.async_compile
        from torch._inductor import config

        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

        pool, env = self._take_early(), self._early_env
        is_usable = pool and self._is_of_right_size(pool) and env and not env.is_outdated
        if pool is not None and not is_usable:
            pool.kill_workers()
            pool = None
        if pool is None:
            env, pool = EnvAtStart(), self._make_pool()
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

    def _take_early(self) -> CompilePool | None:
        if self._unused is not None:
            self._unused.quit()
        pool, self._early = self._early, None
        return pool

    def _make_pool(self, **different: Any) -> CompilePool:
        options = {"start_method": _start_method(), **self._options, **different}
        if options.get("max_workers") is None:
            options["max_workers"] = _compile_threads()
        if "torch._inductor.config" in sys.modules:
            from compilepool.integrations.torch.worker_log import output_env

            options["env"] = {**output_env(), **(options.get("env") or {})}
        return make_pool(**options)

    def _is_of_right_size(self, pool: CompilePool) -> bool:
        return self._options.get("max_workers") is not None or (
            pool.max_workers == _compile_threads()
        )


def _compile_threads() -> int:
    """How many workers Inductor wants, also before it is imported; 1: it compiles by itself."""
    config = sys.modules.get("torch._inductor.config")
    if config is not None and getattr(config, "compile_threads", None):
        return max(1, int(config.compile_threads))
    text = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "")
    if text:
        return max(1, int(text)) if text.isdecimal() else 1
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))  # as `torch._utils.cpu_count`


def _start_method() -> str:
    """torch knows "subprocess", "fork" and "spawn", of which only the last is of the workers."""
    config = sys.modules.get("torch._inductor.config")
    wanted = os.environ.get("TORCHINDUCTOR_WORKER_START", "")
    wanted = getattr(config, "worker_start_method", wanted)
    return "spawn" if wanted == "spawn" else "fork"
