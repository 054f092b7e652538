"""Random programs for as long as one likes: `python -m tests.habits --minutes 60 --seed 1`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.habits.plan import Plan, make_plan
from tests.habits.shrinking import shrink
from tests.habits.trial import Verdict, run


def main() -> None:
    """Run programs, one after the other, and tell of each that has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.habits", description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for how long")
    parser.add_argument("--seed", default="1", help="programs are SEED.0, SEED.1, ...")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--without", default="", help="habits and jobs to leave out, by comma")
    parser.add_argument("--plan", help="only this one: a file with a plan as JSON")
    parser.add_argument("--shrink", action="store_true", help="drop what a fault does not need")
    arguments = parser.parse_args()
    without = frozenset(filter(None, arguments.without.split(",")))

    def plans() -> Iterator[Plan]:
        if arguments.plan:
            yield Plan.of_json(Path(arguments.plan).read_text())
            return
        end = time.monotonic() + 60 * arguments.minutes
        for number in count(arguments.first):
            if time.monotonic() > end:
                return
            yield make_plan(f"{arguments.seed}.{number}", without)

    programs = jobs = faulty = 0
    for plan in plans():
        verdict = run(plan)
        print(plan.seed, f"{verdict.wall_s:.1f} s", "FAULTS" if verdict.faults else "", flush=True)
        programs += 1
        jobs += sum(entry.tag == "job" for entry in verdict.entries)
        if verdict.faults:
            faulty += 1
            _tell(verdict)
            if arguments.shrink:
                print("smallest:", flush=True)
                _tell(shrink(verdict))
    print(f"{programs} programs with {jobs} jobs; {faulty} had faults")


def _tell(verdict: Verdict) -> None:
    print(f"{verdict.plan.seed} took {verdict.wall_s:.1f} s: {verdict.plan.to_json()}")
    for fault in dict.fromkeys(verdict.faults):
        print("   ", fault.replace("\n", "\n      "), flush=True)


if __name__ == "__main__":
    main()
