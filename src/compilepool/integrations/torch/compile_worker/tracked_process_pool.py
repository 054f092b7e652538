"""`TrackedProcessPoolExecutor` of torch/_inductor/compile_worker/tracked_process_pool.py."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any, Literal, ParamSpec, TypeVar

from compilepool.client.future import CompileFuture
from compilepool.client.pool import CompilePool

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclasses.dataclass
class _QueueStats:
    """Statistics of the queues of all pools of this process. `_queue_stats_lock` guards them.

    Attributes:
        pending: the submission time of each unfinished job, by the id of its future.
        waits: the submission and the start of each job that began and has ended.
        enqueue_count: the number of jobs that were submitted.
        pool_count: the number of pools that were made.
    """

    pending: dict[int, float] = dataclasses.field(default_factory=dict)
    waits: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    enqueue_count: int = 0
    pool_count: int = 0

    @property
    def dequeue_count(self) -> int:
        """The number of jobs that began and have ended."""
        return len(self.waits)

    @property
    def timing(self) -> list[float]:
        """The time from submission to start of each of these jobs, in seconds."""
        return [max(0.0, end - start) for start, end in self.waits]

    @property
    def max_queue_depth(self) -> int:
        """The largest number of these jobs that waited at the same time."""
        waits = [(start, end) for start, end in self.waits if start < end]
        steps = [(start, 1) for start, _ in waits] + [(end, -1) for _, end in waits]
        depth = most = 0
        for _, step in sorted(steps):
            depth += step
            most = max(most, depth)
        return most


_queue_stats = _QueueStats()
_queue_stats_lock = threading.Lock()


class TrackedProcessPoolExecutor(CompilePool):
    """A `CompilePool` that counts its queue, for the report at exit.

    Args:
        max_workers: the number of jobs that may run at once; None: the number of usable CPUs.
        mp_context: a context of `multiprocessing`. With "spawn", workers are new interpreters. With
            any other, they are forked from the pool's fork server.
        initializer: a function that each worker calls before its first job.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        is_spawn = mp_context is not None and mp_context.get_start_method() == "spawn"
        method: Literal["fork", "spawn"] = "spawn" if is_spawn else "fork"
        super().__init__(max_workers, initializer=initializer, start_method=method)
        with _queue_stats_lock:
            _queue_stats.pool_count += 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> CompileFuture[T]:
        """Implements `Executor.submit`; see `CompilePool.submit`."""
        future = super().submit(fn, *args, **kwargs)
        with _queue_stats_lock:
            _queue_stats.enqueue_count += 1
            _queue_stats.pending[id(future)] = future.record.queued
        future.add_done_callback(functools.partial(_record_dequeue, future.record.queued))
        return future


def _record_dequeue(queued: float, future: Future[Any]) -> None:
    assert isinstance(future, CompileFuture)
    with _queue_stats_lock:
        _queue_stats.pending.pop(id(future), None)
        if future.record.started is not None:
            _queue_stats.waits.append((queued, future.record.started))


@atexit.register
def _queue_stats_report() -> None:
    stats = _queue_stats
    if stats.pool_count == 0:
        return
    log.info("AsyncCompile Metrics:")
    log.info("  Pools %s", stats.pool_count)
    log.info("  Items %d enqueued / %d dequeued", stats.enqueue_count, stats.dequeue_count)
    log.info("  Max Queue Depth: %d", stats.max_queue_depth)
    timing = sorted(stats.timing)
    if timing:
        log.info("  Longest queue time: %0.2fs", timing[-1])
        log.info("  P50: %0.2fs", timing[len(timing) // 2])
    if len(timing) >= 20:
        log.info("  P95: %0.2fs", timing[len(timing) * 95 // 100])
