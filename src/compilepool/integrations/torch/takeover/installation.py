"""`Installation`: the owner of Inductor's pool in this process, from `install` to `uninstall`."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.compile_worker.timer import Timer
from compilepool.integrations.torch.settings import is_shared
from compilepool.integrations.torch.takeover.pool_for_torch import EnvAtStart, OnCrash, make_pool

if TYPE_CHECKING:
    from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

_MAX_THREADS = 32  # Inductor's default: torch/_inductor/config.py, `decide_compile_threads`
_UNUSED_S = 600.0
"""The time after which a pool that Inductor has not asked for quiesces, in seconds.

A program may import torch and never compile.
"""


class Installation:
    """Makes the pool, and a new one after Inductor has shut it down. A `PoolSource`.

    Args:
        on_crash: what to do with a kernel whose worker crashed; see `install`.
        shared: whether to share the pool with other ranks; see `install`.
        worker_mode: whether the pool gets all jobs in any mode; see `install`.
        pool_options: options of `CompilePool`; see `install`.
        is_early: whether the pool starts now; False: when Inductor asks for it.

    Raises:
        ValueError: `on_crash` or `worker_mode` is wrong.
        ImportError: torch is not installed.
        TypeError, ValueError, OSError, CompilePoolError: `CompilePool` raises it.
    """

    def __init__(
        self,
        on_crash: str,
        shared: bool | None,
        worker_mode: str | None,
        pool_options: dict[str, Any],
        *,
        is_early: bool,
    ) -> None:
        if on_crash not in ("raise", "in_process"):
            raise ValueError(f"on_crash must be 'raise' or 'in_process', not {on_crash!r}")
        if worker_mode not in (None, "process"):
            raise ValueError(f"worker_mode must be 'process' or None, not {worker_mode!r}")
        if importlib.util.find_spec("torch") is None:
            raise ImportError("compilepool has nothing to compile for: torch is not installed")
        self._on_crash: OnCrash = cast(OnCrash, on_crash)
        self.takes_all_modes = worker_mode == "process"
        self._options = pool_options
        if pool_options.get("capture") is False or pool_options.get("seed") is not None:
            shared = bool(shared)  # neither goes with a shared pool
        self._is_shared = is_shared(shared, by_launcher=True)
        self._lock = threading.RLock()
        self._early_pool: CompilePool | None = None
        self._early_env: EnvAtStart | None = None
        self._early_workers: int | None = None
        self._unused_timer: Timer | None = None
        self._subproc_pool: SubprocPool | None = None
        if is_early and _compile_threads() > 1:
            self._early_env = EnvAtStart(shared=self._is_shared)
            self._early_workers = self._workers()
            self._early_pool = self._make_pool()
            self._early_pool.warm_up()
            self._unused_timer = Timer(_UNUSED_S, self._early_pool.quiesce)
            self._unused_timer.record_call()
        else:
            # This pool is never used: making it checks the options. Its trace would create a file.
            self._make_pool(trace=None)

    @property
    def pool(self) -> CompilePool | None:
        """The pool in which Inductor compiles; None if there is none now."""
        if self._subproc_pool is not None and self._subproc_pool.running:
            return self._subproc_pool.pool
        return self._early_pool

    def end(self) -> None:
        """End the pool after its jobs have ended."""
        with self._lock:
            pool, self._subproc_pool = self._subproc_pool, None
            early = self._take_early_pool()
        if early is not None:
            early.kill_workers()
        if pool is not None:
            pool.pool.shutdown()
            pool.shutdown()

    def after_fork(self) -> None:
        """In a forked child: forget the pool, which is the parent's, and renew the lock."""
        self._lock = threading.RLock()
        self._early_pool = self._subproc_pool = self._unused_timer = None

    # Inductor calls these, through the patch.

    def process_pool(self) -> SubprocPool:
        """Return the pool, and start it if needed. Replaces `AsyncCompile.process_pool`."""
        with self._lock:
            if self._subproc_pool is None or not self._subproc_pool.running:
                self._subproc_pool = self._start()
            return self._subproc_pool

    def forget_pool(self) -> None:
        """Forget the pool, because Inductor has shut it down. The next one is new."""
        self._subproc_pool = None

    # The caller holds the lock, except in `__init__`.

    def _start(self) -> SubprocPool:
        from torch._inductor import async_compile, config

        from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPool

        pool, env = self._take_early_pool(), self._early_env
        is_of_right_size = self._workers() == self._early_workers
        is_usable = pool and is_of_right_size and env and not env.is_outdated
        if pool is not None and not is_usable:
            pool.kill_workers()
            pool = None
        if pool is None:
            env, pool = EnvAtStart(shared=self._is_shared), self._make_pool()
        # As torch's own logs it: users look for it with TORCH_LOGS=+inductor.
        async_compile.log.info("Creating 'compilepool' pool with %d workers", pool.max_workers)
        wants_quiesce = config.quiesce_async_compile_pool and "idle_timeout" not in self._options
        subproc_pool = SubprocPool(
            pool.max_workers,
            quiesce=wants_quiesce,
            pool=pool,
            shared=self._is_shared,
            env=env,
            on_crash=self._on_crash,
        )
        async_compile._pool_set.add(subproc_pool)
        return subproc_pool

    def _take_early_pool(self) -> CompilePool | None:
        if self._unused_timer is not None:
            self._unused_timer.quit()
        pool, self._early_pool = self._early_pool, None
        return pool

    def _make_pool(self, **different: Any) -> CompilePool:
        options = {"start_method": _start_method(), **self._options, **different}
        options["max_workers"] = self._workers()
        if "torch._inductor.config" in sys.modules:
            from compilepool.integrations.torch.worker_log import output_env

            options["env"] = {**output_env(), **(options.get("env") or {})}
        return make_pool(shared=self._is_shared, **options)

    def _workers(self) -> int | None:
        """How many workers the pool is to have; None: one for each CPU that some rank may use."""
        given = self._options.get("max_workers")
        if given is not None:
            return cast(int, given)
        wanted = _compile_threads()
        return None if self._is_shared and wanted == _default_threads() else wanted


def _compile_threads() -> int:
    """Return the number of workers that Inductor wants; 1: it compiles in its own process.

    This works before Inductor is imported: then the number comes from the environment and the CPUs.
    """
    config = sys.modules.get("torch._inductor.config")
    if config is not None and getattr(config, "compile_threads", None):
        return max(1, int(config.compile_threads))
    text = os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", "")
    if text:
        return max(1, int(text)) if text.isdecimal() else 1
    return _default_threads()


def _default_threads() -> int:
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))  # as `torch._utils.cpu_count` counts


def _start_method() -> str:
    """Return the pool's start method for Inductor's `worker_start_method`.

    Inductor knows "subprocess", "fork" and "spawn". Only "spawn" is about the workers themselves.
    """
    config = sys.modules.get("torch._inductor.config")
    wanted = os.environ.get("TORCHINDUCTOR_WORKER_START", "")
    wanted = getattr(config, "worker_start_method", wanted)
    return "spawn" if wanted == "spawn" else "fork"
