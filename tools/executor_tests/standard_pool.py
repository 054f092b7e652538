"""A `CompilePool` behind `ProcessPoolExecutor`'s face, for CPython's tests of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from compilepool import CompilePool
from compilepool.client.internals import supervisor_of
from tools.executor_tests.workers import (
    CallQueue,
    ManagerThread,
    Worker,
    submit_late_errors,
    workers_of,
)


class StandardPool(CompilePool):
    """A `CompilePool` that takes the arguments of `ProcessPoolExecutor`."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        super().__init__(
            max_workers,
            start_method="fork" if mp_context is None else mp_context.get_start_method(),
            initializer=initializer,
            initargs=initargs,
            max_jobs_per_worker=max_tasks_per_child,
        )
        self._call_queue = CallQueue()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit_late_errors(super().submit, fn, *args, **kwargs)

    @property
    def _processes(self) -> dict[int, Worker]:
        # Theirs start in `submit`. Ours start soon after it.
        deadline = time.monotonic() + 20
        while not (found := workers_of(self)) and supervisor_of(self) is not None:
            if time.monotonic() > deadline:
                raise TimeoutError("no worker starts")
            time.sleep(0.005)
        return found

    @property
    def _executor_manager_thread(self) -> ManagerThread:
        return ManagerThread(self)
