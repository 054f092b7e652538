"""pebble's names over `CompilePool`: stands in for `pebble.ProcessPool` and `ProcessExpired`.

Each method is what a program would write in its place; `differences.toml` has the table.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

from compilepool import CompilePool
from compilepool.errors import WorkerCrashed
from tools.executor_tests.workers import submit_late_errors

ProcessExpired = WorkerCrashed

__all__ = ["ProcessExpired", "ProcessPool"]


class MapFuture:
    """What `map` returns: `result()` is the iterator, and `cancel()` ends what is left of it."""

    def __init__(self, futures: list[Future[Any]]) -> None:
        self._futures = futures

    def cancel(self) -> None:
        """Cancel all that has not ended."""
        for future in self._futures:
            future.cancel()

    def result(self) -> Iterator[Any]:
        """The iterator."""
        return Results(self._futures)


class Results:
    """The results in order. Unlike a generator's, the iteration goes on after an error."""

    def __init__(self, futures: list[Future[Any]]) -> None:
        self._futures = iter(futures)
        self._chunk: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        for value in self._chunk:
            return value
        self._chunk = iter(next(self._futures).result())
        return next(self)


class ProcessPool:
    """A `CompilePool` that takes pebble's arguments."""

    def __init__(
        self,
        max_workers: int | None = None,
        max_tasks: int = 0,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        context: Any = multiprocessing,
    ) -> None:
        self._pool = CompilePool(
            max_workers,
            start_method="spawn" if context.get_start_method() == "spawn" else "fork",
            initializer=initializer,
            initargs=tuple(initargs),
            max_jobs_per_worker=max_tasks or None,
        )
        self._futures: list[Future[Any]] = []
        self._is_closed = False

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join()

    @property
    def active(self) -> bool:
        """Whether the pool takes jobs."""
        return not self._is_closed

    def schedule(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future[Any]:
        """Submit with a timeout."""
        submit = self._pool.options(timeout=timeout).submit
        future: Future[Any] = submit_late_errors(submit, function, *args, **(kwargs or {}))
        self._futures.append(future)
        return future

    def submit(
        self, function: Callable[..., Any], timeout: float | None, /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Submit as asyncio's `run_in_executor` does, the timeout first."""
        return self.schedule(function, args, kwargs, timeout)

    def map(
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> MapFuture:
        """Submit in chunks, each with a timeout."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1")
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        return MapFuture(
            [self.schedule(_run_all, (function, each), None, timeout) for each in chunks]
        )

    def close(self) -> None:
        """Accept no more jobs."""
        self._is_closed = True
        self._pool.shutdown(wait=False)

    def stop(self) -> None:
        """End all workers."""
        self._is_closed = True
        self._pool.kill_workers()

    def join(self, timeout: float | None = None) -> None:
        """Wait for all jobs and workers.

        Raises:
            RuntimeError: the pool is still active.
            TimeoutError: jobs are left after `timeout`.
        """
        if self.active:
            raise RuntimeError("The Pool is still running")
        if wait(self._futures, timeout).not_done:
            raise TimeoutError("jobs are still being computed")
        self._pool.shutdown(wait=True)


def _run_all(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*call) for call in calls]
