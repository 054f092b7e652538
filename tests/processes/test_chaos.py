"""Everything dies at random, and every job ends all the same."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import threading

from compilepool import CompilePool, SupervisorDied, WorkerCrashed
from tests.proc import PATIENCE_S, pool_processes, wait_until

JOBS = 2000
BATCH = 100
# Seldom a supervisor: the second death of one fails all jobs that saw the first.
KINDS = ("worker",) * 16 + ("fork server",) * 3 + ("supervisor",)


def double(number: int) -> tuple[int, bytes]:
    """Small, medium (inline in a message of its own) and large (memfd) results."""
    if number % 7 == 0:
        select.select([], [], [], 0.01)
    size = (0, 0, 0, 20_000, 100_000)[number % 5]
    return 2 * number, bytes([number % 256]) * size


def kill_at_random(
    stop: threading.Event, ended: list[int], seed: int, counts: dict[str, int]
) -> None:
    """Kill processes while jobs end: `ended` grows by each one."""
    chance = random.Random(seed)
    before = 0
    while not stop.wait(chance.uniform(0.0, 0.05)):
        kind = chance.choice(KINDS)
        # Until some more jobs have ended, the last blow is still being mended: how long that takes
        # is the machine's business.
        enough = before + 10
        wait_until(lambda enough=enough: len(ended) > enough or stop.is_set())  # type: ignore[misc]
        before = len(ended)
        # It may be gone by the time it is signalled; its pid is not used again that fast.
        with contextlib.suppress(ProcessLookupError):
            if pids := pool_processes(kind):
                os.kill(chance.choice(pids), signal.SIGKILL)
                counts[kind] = counts.get(kind, 0) + 1


def test_every_job_of_2000_ends_right_while_everything_is_killed_at_random() -> None:
    stop = threading.Event()
    counts: dict[str, int] = {}
    ended: list[int] = []
    killer = threading.Thread(target=kill_at_random, args=(stop, ended, 7, counts))
    lost = 0
    with CompilePool(3) as pool:
        killer.start()
        try:
            for start in range(0, JOBS, BATCH):
                futures = [pool.submit(double, i) for i in range(start, start + BATCH)]
                for number, future in enumerate(futures, start):
                    ended.append(number)
                    error = future.exception(PATIENCE_S)
                    if error is None:
                        assert future.result() == double(number)
                    else:
                        assert isinstance(error, WorkerCrashed | SupervisorDied), error
                        lost += 1
        finally:
            stop.set()
            killer.join()
        assert [pool.submit(abs, -i).result(PATIENCE_S) for i in range(20)] == list(range(20))
    assert set(counts) == set(KINDS), f"the chaos was too small to mean anything: {counts}"
    assert lost < JOBS / 2
