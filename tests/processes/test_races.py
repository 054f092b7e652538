"""A job that is cancelled, times out, crashes and ends, all at about the same time: real processes.

The same over the pure scheduler, at random: `tests/logic/test_scheduler_at_random.py`.
"""

from __future__ import annotations

import os
import random
import select
import signal
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, JobTimeout, WorkerCrashed
from tests.proc import PATIENCE_S, pool_processes, wait_until

LIMIT_S = 0.02
WORKERS = 3
ROUNDS = 300


def race(seed: int) -> int:
    """Ends, crashes or is killed at about its timeout."""
    dice = random.Random(seed)
    select.select([], [], [], LIMIT_S * dice.uniform(0.5, 1.5))
    end = dice.choice(["return", "raise", "crash", "kill", "exit", "hang"])
    if end == "raise":
        raise ValueError(seed)
    if end == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "exit":
        os._exit(1)
    if end == "hang":
        signal.pause()
    return seed


def end_of(future: CompileFuture[int], seed: int) -> str:
    try:
        assert future.result(PATIENCE_S) == seed
    except (CancelledError, ValueError, WorkerCrashed, JobTimeout) as error:
        return type(error).__name__
    return "result"


@pytest.mark.parametrize("native_tracebacks", [False, True])
def test_each_future_ends_once_and_no_worker_is_lost(native_tracebacks: bool) -> None:
    dice = random.Random(1)
    ended: Counter[int] = Counter()
    options: dict[str, Any] = {
        "keep_crashes": False,
        "native_tracebacks": native_tracebacks,
        "preload": [__name__],  # else the import takes all of the time
    }
    with CompilePool(WORKERS, timeout=LIMIT_S, **options) as pool:
        futures: list[CompileFuture[int]] = []
        for seed in range(ROUNDS):
            future = pool.options(retries=seed % 2).submit(race, seed)
            future.add_done_callback(lambda _, seed=seed: ended.update([seed]))  # type: ignore[misc]
            futures.append(future)
            while sum(not other.done() for other in futures) > WORKERS:
                select.select([], [], [], dice.uniform(0, LIMIT_S))
                dice.choice(futures[-WORKERS:]).cancel() if dice.random() < 0.3 else None
        ends = Counter(end_of(future, seed) for seed, future in enumerate(futures))
        assert sum(ends.values()) == ROUNDS
        assert set(ends) == {
            "CancelledError",
            "ValueError",
            "WorkerCrashed",
            "JobTimeout",
            "result",
        }
        # All workers that there may be are there, and no other.
        assert [pool.submit(abs, -1).result(PATIENCE_S) for _ in range(WORKERS)] == [1] * WORKERS
        assert wait_until(lambda: len(pool_processes("worker")) <= WORKERS)
        pool.warm_up()
        assert wait_until(lambda: len(pool_processes("worker")) == WORKERS)
    assert ended == Counter(range(ROUNDS))
