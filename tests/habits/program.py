"""The program itself: does what a plan says, around a pool.

Arguments: the plan as JSON, the program's own folder.
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path

from tests.habits.habit import load_habits
from tests.habits.kit import Kit
from tests.habits.plan import Plan

kits: list[Kit] = []
"""The only one, where a habit in a spawned process or a thread finds it."""


def main() -> None:
    """Do it all."""
    load_habits()
    kit = Kit(Plan.of_json(sys.argv[1]), Path(sys.argv[2]))
    kits.append(kit)
    # First, so that it is called last: after the pool's own.
    atexit.register(kit.look_back)
    kit.do("options")
    kit.do("early")
    way = next(each for each in kit.plan.chosen() if each.point == "way")
    pid = os.getpid()
    kit.stage(f"way: {way.name}")
    way.do(kit, lambda: _body(kit))
    if os.getpid() == pid:
        kit.do("after")
        _end(kit)


def _body(kit: Kit) -> None:
    """What the program does while it has its pool."""
    try:
        kit.do("made")
        kit.submit("adds")
        if kit.chance("start").random() < 0.7:
            kit.wait_for_all()
        kit.do("started")
        for _ in range(8):
            kit.submit()
        kit.do("busy")
        for _ in range(4):
            kit.submit()
        if kit.plan.ends_inside:
            _end(kit)
        kit.wait_for_all()
        kit.do_last()
        kit.do("late")
        kit.wait_for_all()
    finally:
        # Whatever it raises, it does not wait for what never ends.
        kit.cancel_endless()


def _end(kit: Kit) -> None:
    kit.is_ending.set()
    kit.do("end")
