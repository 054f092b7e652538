"""A job starts only where there is memory for it."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from compilepool import CompilePool
from compilepool.linux.free_memory import MachineMemory
from tests.cgroups import run_with_memory
from tests.proc import PATIENCE_S, pool_processes, wait_until

MIB = 1 << 20


def count_running(folder: Path) -> int:
    """How many run with this one. Each stays until others have had time to come."""
    own = folder / str(os.getpid())
    own.touch()
    select.select([], [], [], 0.02)
    count = len(list(folder.iterdir()))
    own.unlink()
    return count


def wait_for_others(folder: Path, count: int) -> bool:
    (folder / str(os.getpid())).touch()
    return wait_until(lambda: len(list(folder.iterdir())) == count)


@pytest.mark.alone
def test_of_declared_jobs_no_more_run_at_once_than_there_is_memory_for(tmp_path: Path) -> None:
    free = MachineMemory().free()
    assert free is not None
    with CompilePool(12) as pool:
        # Five fit. What others take or leave meanwhile is less than a half of one.
        pool.submit(count_running, tmp_path).result(PATIENCE_S)
        large = pool.options(expected_memory=int(free / 5.5))
        futures = [large.submit(count_running, tmp_path) for _ in range(200)]
        counts = [future.result(PATIENCE_S) for future in futures]
        assert len(counts) == 200
        assert 2 <= max(counts) <= 5
        small = [pool.submit(wait_for_others, tmp_path, 7) for _ in range(7)]
        assert all(future.result(PATIENCE_S) for future in small)


def test_one_that_is_too_large_for_the_machine_runs_alone(tmp_path: Path) -> None:
    with CompilePool(4) as pool:
        huge = pool.options(expected_memory="1000TiB")
        futures = [huge.submit(count_running, tmp_path) for _ in range(5)]
        futures += [pool.submit(count_running, tmp_path) for _ in range(5)]
        counts = [future.result(PATIENCE_S) for future in futures]
        assert counts[:5] == [1] * 5


def test_priorities_hold_among_jobs_that_wait(tmp_path: Path) -> None:
    def note(name: str) -> None:
        with (tmp_path / "order").open("a") as file:
            file.write(name)

    def hold() -> None:
        assert wait_until((tmp_path / "gate").exists)

    with CompilePool(1) as pool:
        first = pool.submit(hold)
        assert wait_until(first.running)
        futures = [
            pool.options(priority=priority).submit(note, name)
            for name, priority in (("c", 0), ("e", -5), ("a", 10), ("b", 10), ("d", 0))
        ]
        (tmp_path / "gate").touch()
        for future in futures:
            future.result(PATIENCE_S)
    assert (tmp_path / "order").read_text() == "abcde"


@pytest.mark.alone
def test_eight_pools_in_too_little_memory_end_all_their_jobs() -> None:
    assert run_with_memory(1536 * MIB, "eight_pools.py").split() == ["48"]
    assert not pool_processes("worker")
