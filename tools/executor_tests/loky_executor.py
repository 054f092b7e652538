"""loky's names over `CompilePool`: stands in for `loky.process_executor` and `.reusable_executor`.

Each name is what a program would write in its place; `differences.toml` has the table.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool as StandardBroken
from typing import Any, ClassVar

from compilepool import CompilePool
from compilepool.errors import (
    NestedPoolError,
    PoolClosed,
    RemoteTraceback,
    SerializationError,
    WorkerCrashed,
)
from tools.executor_tests.workers import (
    CallQueue,
    ManagerThread,
    Worker,
    submit_late_errors,
    workers_of,
)

BrokenProcessPool = (StandardBroken, SerializationError)
TerminatedWorkerError = WorkerCrashed
ShutdownExecutorError = (PoolClosed, CancelledError)
LokyRecursionError = NestedPoolError
_RemoteTraceback = RemoteTraceback
MAX_DEPTH = 1

__all__ = [
    "MAX_DEPTH",
    "BrokenProcessPool",
    "LokyRecursionError",
    "ProcessPoolExecutor",
    "ShutdownExecutorError",
    "TerminatedWorkerError",
    "_RemoteTraceback",
]


class Flags:
    """loky's `_flags`, which outlive the executor."""

    broken = None
    """No crash breaks a `CompilePool`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = weakref.ref(pool)

    @property
    def shutdown(self) -> bool:
        """Whether the pool takes no more jobs."""
        pool = self._pool()
        return pool is None or pool._shut


class ProcessPoolExecutor(CompilePool):
    """A `CompilePool` that takes loky's arguments."""

    living: ClassVar[weakref.WeakSet[ProcessPoolExecutor]] = weakref.WeakSet()

    def __init__(
        self,
        max_workers: int | None = None,
        job_reducers: object = None,
        result_reducers: object = None,
        timeout: float | None = None,
        context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        if job_reducers or result_reducers:
            raise TypeError("CompilePool has `serializer` in place of reducers")
        method: Any = context if isinstance(context, str) else "loky"
        if hasattr(context, "get_start_method"):
            method = context.get_start_method()
        super().__init__(
            max_workers,
            start_method="fork" if method in {"loky", "forkserver"} else method,
            initializer=initializer,
            initargs=initargs,
            env=env,
            idle_timeout=timeout,
            min_workers=max(max_workers or 0, 0) if timeout is None else 0,
        )
        self._shut = False
        self._call_queue = CallQueue()
        self.living.add(self)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit_late_errors(super().submit, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, kill_workers: bool = False, **kwargs: Any) -> None:
        self._shut = True
        if kill_workers:
            self.kill_workers()
        super().shutdown(wait, **kwargs)

    @property
    def _processes(self) -> dict[int, Worker]:
        if not self._shut:
            self.wait_ready(60)
        return workers_of(self)

    @property
    def _executor_manager_thread(self) -> ManagerThread:
        return ManagerThread(self)

    @property
    def _flags(self) -> Flags:
        return Flags(self)

    @property
    def _timeout(self) -> float | None:
        return self._options.idle_timeout
