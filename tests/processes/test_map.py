"""`map`, as Python 3.14's `ProcessPoolExecutor` has it, on a pool and on its views."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool, JobTimeout, PoolClosed
from tests.proc import PATIENCE_S
from tests.programs.fifos import Fifo, run_until


def double(number: int) -> int:
    return 2 * number


def add(first: int, second: int = 0) -> int:
    return first + second


def invert(number: int) -> float:
    return 1 / number


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("buffersize", [None, 1, 4])
def test_the_results_come_in_order(
    pool: CompilePool, chunksize: int, buffersize: int | None
) -> None:
    sums = pool.map(
        add, range(20), [1] * 15, timeout=PATIENCE_S, chunksize=chunksize, buffersize=buffersize
    )
    assert list(sums) == list(range(1, 16))
    assert list(pool.map(add, [], chunksize=chunksize, buffersize=buffersize)) == []


class Integer:
    """An integer of another library, such as numpy's."""

    def __index__(self) -> int:
        return 2

    def __eq__(self, other: object) -> bool:
        return other == 2

    def __hash__(self) -> int:
        return 2

    def __lt__(self, other: int) -> bool:
        return other > 2


def test_a_chunksize_may_be_an_integer_of_another_library(pool: CompilePool) -> None:
    chunksize: Any = Integer()
    assert list(pool.map(double, range(5), chunksize=chunksize)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"chunksize": 0}, ValueError),
        ({"chunksize": -1}, ValueError),
        ({"chunksize": 1.5}, TypeError),
        ({"chunksize": "3"}, TypeError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": -1}, ValueError),
        ({"buffersize": 1.5}, TypeError),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_submitted(
    pool: CompilePool, wrong: dict[str, Any], error: type[Exception]
) -> None:
    numbers = iter([1])
    for executor in (pool, pool.options(priority=1)):
        with pytest.raises(error, match=f"^{next(iter(wrong))} must be"):
            executor.map(double, numbers, **wrong)
    with pytest.raises(TypeError, match="map needs a callable, not int"):
        pool.map(3, numbers)  # type: ignore[arg-type]
    assert list(numbers) == [1]
    assert pool.stats().submitted == 0


def test_a_chunk_is_one_job_with_the_name_of_its_function(pool: CompilePool, fifo: Fifo) -> None:
    assert list(pool.map(double, range(10), chunksize=4)) == [2 * number for number in range(10)]
    assert pool.stats().submitted == 3
    with pytest.raises(JobTimeout, match="job 'run_until'"):
        list(pool.options(timeout=0.1).map(run_until, [fifo.path], chunksize=2))


def test_the_options_of_a_view_hold_for_its_jobs(fifo: Fifo) -> None:
    with CompilePool(1) as pool:
        for chunksize in (1, 2):
            view = pool.options(name="named", timeout=0.1)
            with pytest.raises(JobTimeout, match="job 'named'") as late:
                next(view.map(run_until, [fifo.path], chunksize=chunksize))
            assert late.value.job == "named"


def test_an_endless_iterable_is_read_no_further_than_the_buffer(pool: CompilePool) -> None:
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = pool.options(name="endless").map(double, numbers(), buffersize=5)
    assert taken == 5
    assert list(itertools.islice(results, 10)) == [2 * number for number in range(1, 11)]
    assert taken == 15
    taken = 0
    chunks = pool.map(double, numbers(), chunksize=3, buffersize=2)
    assert taken == 6
    assert [next(chunks) for _ in range(4)] == [2, 4, 6, 8]
    assert taken == 12


def test_a_pool_that_nobody_else_holds_goes_on_until_its_map_has_ended() -> None:
    results = CompilePool(1).map(double, range(5), buffersize=2)
    assert list(results) == [0, 2, 4, 6, 8]


def test_an_error_ends_the_rest() -> None:
    with CompilePool(1) as pool:
        results = pool.map(invert, [1, 0, *([1] * 50)], chunksize=1, buffersize=10)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == []
        assert pool.stats().submitted == 12
        in_chunks = pool.map(invert, [1, 1, 1, 0], chunksize=2)
        assert [next(in_chunks), next(in_chunks)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(in_chunks)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_who_closes_the_iterator_cancels_the_rest(fifo: Fifo, chunksize: int) -> None:
    with CompilePool(1) as pool:
        paths = [Path("/dev/null")] * chunksize + [fifo.path] * 4
        results = pool.map(run_until, paths, chunksize=chunksize)
        assert next(results) == "ran"
        fifo.is_reached()
        results.close()  # type: ignore[attr-defined]
    assert pool.stats().cancelled == 4 // chunksize


def test_a_result_that_is_late_is_a_timeout(fifo: Fifo) -> None:
    with CompilePool(1) as pool:
        results = pool.map(run_until, [fifo.path] * 2, timeout=0)
        with pytest.raises(TimeoutError):
            next(results)
    assert pool.stats().cancelled == 2


def test_an_iterable_that_raises_leaves_no_job(fifo: Fifo) -> None:
    def paths() -> Iterator[Path]:
        yield fifo.path
        fifo.is_reached()
        raise LookupError

    with CompilePool(1) as pool:
        with pytest.raises(LookupError):
            pool.map(run_until, paths())
        with pytest.raises(pickle.PicklingError):
            pool.map(double, [1, (each for each in "")])
    assert pool.stats().cancelled >= 1
    for executor in (pool, pool.options(priority=1)):
        with pytest.raises(PoolClosed):
            executor.map(double, [1])
