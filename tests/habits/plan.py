"""Chooses what a program does, from a seed."""

from __future__ import annotations

import dataclasses
import json
import random

from tests.habits.habit import HABITS, SEVERAL, Habit, Point
from tests.habits.jobs import JOBS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one program does.

    Attributes:
        seed: what its chance starts from.
        habits: the names of its habits, in order.
        jobs: the kinds of its jobs.
        by_value: whether the functions of its jobs are sent by value.
        ends_inside: whether it ends while it still has its pool.
    """

    seed: str
    habits: tuple[str, ...]
    jobs: tuple[str, ...]
    by_value: bool = False
    ends_inside: bool = False

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Plan:
        """The plan that `to_json` made this of."""
        fields = json.loads(text)
        return cls(**{**fields, "habits": tuple(fields["habits"]), "jobs": tuple(fields["jobs"])})

    def chosen(self) -> list[Habit]:
        """Its habits."""
        return [HABITS[name] for name in self.habits]


def make_plan(seed: str, without: frozenset[str] = frozenset()) -> Plan:
    """Choose the habits and jobs of a program.

    Args:
        seed: the same seed makes the same plan.
        without: names of habits and kinds of jobs to leave out.
    """
    chance = random.Random(seed)
    by_point: dict[Point, list[Habit]] = {}
    for each in HABITS.values():
        if each.name not in without:
            by_point.setdefault(each.point, []).append(each)
    chosen: list[Habit] = []

    def choose(point: Point, most: int) -> None:
        some = by_point[point]
        for each in chance.sample(some, min(len(some), chance.randint(0, most))):
            if not each.group or each.group not in {other.group for other in chosen}:
                chosen.append(each)

    choose("launch", 2)
    choose("options", 3)
    for point in SEVERAL:
        choose(point, 2 if point in ("early", "busy") else 1)
    chosen.append(chance.choice(by_point["way"]))
    # Most programs end as most programs do.
    ends = by_point["end"]
    chosen.append(chance.choice(ends) if chance.random() < 0.6 else HABITS["returns"])
    kinds = [name for name in JOBS if name not in without]
    jobs = ["adds", *chance.sample(kinds, chance.randint(1, 4))]
    return Plan(
        seed,
        tuple(each.name for each in chosen),
        tuple(jobs),
        by_value=chance.random() < 0.3,
        ends_inside=chance.random() < 0.4,
    )
