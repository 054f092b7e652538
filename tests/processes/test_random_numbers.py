"""Random numbers of jobs: different in each worker, or reproducible with a seed."""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from compilepool import CompilePool, WorkerCrashed
from tests.proc import PATIENCE_S
from tests.processes.replays import compilepool

START_METHODS = ["fork", "spawn"]

SEEDED = """
import random
random.seed(3)
"""


def draw(gate: str = "") -> tuple[int, float]:
    """The worker, and what it draws. Returns when both workers are in it."""
    if gate:
        with open(gate, "w"):  # a FIFO, which the other worker opens to read
            pass
    return os.getpid(), random.random()


def draw_beside(gate: str) -> tuple[int, float]:
    with open(gate) as opened:
        opened.read()
    return draw()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_workers_differ_even_if_the_preload_has_seeded_them(
    start_method: Literal["fork", "spawn"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seeded.py").write_text(SEEDED)
    monkeypatch.syspath_prepend(tmp_path)
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    with CompilePool(2, preload=["seeded"], start_method=start_method) as pool:
        futures = [pool.submit(draw, gate), pool.submit(draw_beside, gate)]
        (first, drawn), (second, drawn_there) = [each.result(PATIENCE_S) for each in futures]
    assert first != second
    assert drawn != drawn_there


def seed_random(seed: int) -> None:
    random.seed(seed)  # the function itself would be pickled with a generator of its own


def test_an_initializer_may_seed() -> None:
    expected = random.Random(5).random()
    with CompilePool(1, initializer=seed_random, initargs=(5,), preload=["random"]) as pool:
        assert pool.submit(draw).result(PATIENCE_S)[1] == expected


def draw_number(number: int) -> float:
    if number % 3 == 0:
        random.seed(number)  # which must not reach the next job
    return random.random() if number % 2 else random.uniform(number, 2.0 * number)


def numbers_of(pool: CompilePool) -> list[float]:
    return list(pool.map(draw_number, range(1, 20)))


@pytest.mark.parametrize("start_method", START_METHODS)
def test_with_a_seed_a_program_has_the_same_numbers_again(
    start_method: Literal["fork", "spawn"],
) -> None:
    with CompilePool(1, seed=7) as pool:
        numbers = numbers_of(pool)
        assert len(set(numbers)) == len(numbers)
        assert numbers_of(pool) != numbers
    with CompilePool(2, seed=7, start_method=start_method, preload=["random"]) as pool:
        assert numbers_of(pool) == numbers
    with CompilePool(2, seed=8) as pool:
        assert numbers_of(pool) != numbers


def test_only_a_seed_waits_for_modules() -> None:
    with CompilePool(1) as pool:
        is_loaded = pool.submit(eval, "'random' in __import__('sys').modules")
        assert is_loaded.result(PATIENCE_S) is False


def test_an_initializer_starts_from_the_seed_of_the_pool() -> None:
    drawn = []
    for workers in (1, 2):
        with CompilePool(workers, seed=3, initializer=keep_number) as pool:
            drawn.append(pool.submit(kept_number).result(PATIENCE_S))
    assert drawn[0] == drawn[1]


def keep_number() -> None:
    sys.number = random.random()  # type: ignore[attr-defined]


def kept_number() -> Any:
    return sys.number  # type: ignore[attr-defined]


def draw_and_crash() -> None:
    print(f"drawn: {random.random()}", flush=True)
    ctypes.string_at(0)


def test_a_replay_draws_the_same_again(root: Path) -> None:
    with CompilePool(1, seed=9) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        error = pool.submit(draw_and_crash).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert "drawn: 0." in error.log
    assert error.log.strip() in compilepool("replay", error.folder).stdout
    report = json.loads((Path(error.folder) / "report.json").read_text())
    assert isinstance(report["seed"], int)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be from 0 to"):
        CompilePool(1, seed=seed)


@pytest.mark.parametrize("seed", ["7", 1.0, True])
def test_a_seed_is_an_int(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed must be an int or None"):
        CompilePool(1, seed=seed)
