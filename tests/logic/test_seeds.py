"""The seeds of jobs: reproducible, and different from job to job."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.client.terms import seed_of_job
from compilepool.worker import random_state

SEEDS = st.integers(0, (1 << 64) - 1)
NUMBERS = st.integers(1, 1 << 40)


@given(SEEDS, st.sets(NUMBERS, min_size=2, max_size=50))
def test_each_job_of_a_pool_has_a_seed_of_its_own(seed: int, numbers: set[int]) -> None:
    seeds = {seed_of_job(seed, number) for number in numbers}
    assert len(seeds) == len(numbers)
    assert all(0 <= each < 1 << 64 for each in seeds)
    assert seeds == {seed_of_job(seed, number) for number in numbers}


@given(SEEDS, SEEDS, NUMBERS)
def test_pools_with_other_seeds_give_their_jobs_other_seeds(
    first: int, second: int, number: int
) -> None:
    assert (seed_of_job(first, number) == seed_of_job(second, number)) == (first == second)


def test_it_is_splitmix64() -> None:
    # The first outputs for the seed 1234567, as many implementations test them:
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    outputs = [seed_of_job(1234567, number) for number in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_without_a_seed_nothing_is_imported_and_all_start_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = random.getstate()
    try:
        random.seed(1)
        started = random.getstate()
        random_state.start_anew(None)
        assert random.getstate() != started
        monkeypatch.delitem(sys.modules, "random")
        random_state.start_anew(None)
        assert "random" not in sys.modules
    finally:
        random.setstate(state)
