"""Drops from a plan what a fault does not need."""

from __future__ import annotations

import dataclasses

from tests.habits.habit import HABITS
from tests.habits.plan import Plan
from tests.habits.trial import Verdict, run

_ALWAYS = ("way", "end")
_PLAIN = {"way": "in_a_block", "end": "returns"}


def shrink(verdict: Verdict, attempts: int = 2) -> Verdict:
    """The verdict of the smallest plan found that still has a fault of the same sort.

    Args:
        verdict: of a program with faults.
        attempts: how often a smaller plan may go well before it is given up.
    """
    sort = sorts(verdict)
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for plan in _smaller(verdict.plan):
            other = next((v for v in (run(plan) for _ in range(attempts)) if sorts(v) & sort), None)
            if other is not None:
                verdict, is_smaller = other, True
                break
    return verdict


def sorts(verdict: Verdict) -> set[str]:
    """The faults of a verdict, without what differs each time."""
    return {" ".join(fault.split()[:3]) for fault in verdict.faults}


def _smaller(plan: Plan) -> list[Plan]:
    plans = []
    for name in plan.habits:
        point = HABITS[name].point
        if point not in _ALWAYS:
            rest = tuple(other for other in plan.habits if other != name)
            plans.append(dataclasses.replace(plan, habits=rest))
        elif name != _PLAIN[point]:
            others = tuple(_PLAIN[point] if other == name else other for other in plan.habits)
            plans.append(dataclasses.replace(plan, habits=others))
    for kind in set(plan.jobs):
        if len(plan.jobs) > 1 and kind != "adds":
            rest = tuple(other for other in plan.jobs if other != kind)
            plans.append(dataclasses.replace(plan, jobs=rest))
    if plan.by_value:
        plans.append(dataclasses.replace(plan, by_value=False))
    if plan.ends_inside:
        plans.append(dataclasses.replace(plan, ends_inside=False))
    return plans
