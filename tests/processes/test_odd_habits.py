"""Programs with odd habits, chosen by a fixed seed: each ends, and so do its futures."""

from __future__ import annotations

import pytest

from tests.habits.plan import make_plan
from tests.habits.trial import run

PROGRAMS = 30
SEED = "16"


@pytest.mark.parametrize("number", range(PROGRAMS))
def test_a_program_with_odd_habits_ends_and_leaves_nothing(number: int) -> None:
    verdict = run(make_plan(f"{SEED}.{number}"))
    assert verdict.faults == [], verdict.plan.to_json()
