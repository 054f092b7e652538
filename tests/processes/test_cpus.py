"""The CPUs and the niceness of workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S, wait_until


def test_a_process_bound_to_one_cpu_gets_a_pool_of_one_worker() -> None:
    program = """
import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from compilepool import CompilePool
from compilepool.linux.cpus import usable_cpus
from tests.proc import pool_processes

assert usable_cpus() == 1, usable_cpus()
with CompilePool() as pool:
    pool.warm_up()
    pids = {pool.submit(os.getpid).result() for _ in range(20)}
    assert pids == set(pool_processes("worker")), pids
    assert len(pids) == 1, pids
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)


def placed() -> tuple[int, list[int], list[int]]:
    """This process's niceness and CPUs, and those of a thread."""
    of_thread: list[int] = []
    thread = threading.Thread(target=lambda: of_thread.extend(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    return os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), sorted(of_thread)


def meet(barrier: Path, count: int) -> tuple[int, ...]:
    """The CPUs of this process, when `count` of them have come together."""
    (barrier / str(os.getpid())).touch()
    assert wait_until(lambda: len(list(barrier.iterdir())) == count)
    return tuple(os.sched_getaffinity(0))


START_METHODS: list[Literal["fork", "spawn"]] = ["fork", "spawn"]


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_are_as_nice_as_they_shall_be(start_method: Literal["fork", "spawn"]) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with CompilePool(1, nice=3, start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[0] == own + 3
    with CompilePool(1, start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[0] == own


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_keep_to_their_cpus(start_method: Literal["fork", "spawn"]) -> None:
    first = min(os.sched_getaffinity(0))
    with CompilePool(1, cpus=[first], start_method=start_method) as pool:
        assert pool.submit(placed).result(PATIENCE_S)[1:] == ([first], [first])
    with CompilePool(1, start_method=start_method) as pool:
        everything = sorted(os.sched_getaffinity(0))
        assert pool.submit(placed).result(PATIENCE_S)[1:] == (everything, everything)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_pinned_workers_have_a_cpu_each(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    with CompilePool(2, cpus=cpus, pin_workers=True) as pool:
        for attempt in range(2):
            barrier = tmp_path / str(attempt)
            barrier.mkdir()
            futures = [pool.submit(meet, barrier, 2) for _ in range(2)]
            found = sorted(future.result(PATIENCE_S) for future in futures)
            assert found == [(cpu,) for cpu in cpus]
            pool.submit(os._exit, 1).exception(PATIENCE_S)  # its successor gets its place
