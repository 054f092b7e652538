"""A habit: one odd thing that a program does, and what can be expected of a program that has it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.habits.kit import Kit

Point = Literal[
    "launch",  # how the program is started; the checker does it
    "options",  # how its pool is made
    "early",  # before compilepool is imported
    "made",  # its pool is made, and nothing has started
    "started",  # the first job has ended
    "busy",  # jobs run
    "callback",  # in a callback of a future
    "late",  # all jobs have ended
    "way",  # how it holds its pool, and lets go of it
    "after",  # it has let go of its pool
    "end",  # how it ends
]

SEVERAL: tuple[Point, ...] = ("early", "made", "started", "busy", "callback", "late", "after")
"""Points at which a program may do several things."""


@dataclasses.dataclass
class Launch:
    """How a program is started.

    Attributes:
        directory: its own folder.
        env: its environment.
        flags: the interpreter's.
        shell: what a shell does before it becomes the program.
    """

    directory: Path
    env: dict[str, str]
    flags: list[str] = dataclasses.field(default_factory=list)
    shell: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Habit:
    """One odd thing.

    Attributes:
        name: its name.
        point: when the program does it.
        do: does it: with the `Launch`, or with the `Kit`; at "way" with the body of the program,
            too; at "callback" with the future.
        allows: names of errors that any job may end with because of it; "KIND/NAME": jobs of that
            kind only.
        says: patterns of the lines that it puts on error output.
        statuses: exit statuses that it may cause, besides those of the others.
        is_deaf: whether the program ends without a chance to hear how its futures end.
        loses: whether the program may lose a future that it has just got.
        group: at most one habit of a group is in a program; "" if it goes with all.
        kind: the kind of fault in the list of kinds that it is known to find; 0 if none.
    """

    name: str
    point: Point
    do: Callable[..., Any]
    allows: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    is_deaf: bool = False
    loses: bool = False
    group: str = ""
    kind: int = 0


HABITS: dict[str, Habit] = {}
"""All habits by their names, once `load_habits` was called."""

_SUBJECTS = (
    "descriptors",
    "ends",
    "forks",
    "launches",
    "options",
    "patches",
    "patches_of_interpreter",
    "signals",
    "threads",
    "ways",
)


def load_habits() -> None:
    """Import every file of habits."""
    for subject in _SUBJECTS:
        importlib.import_module(f"tests.habits.{subject}")


def habit(point: Point, **expected: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function a habit, under its own name."""

    def register(do: Callable[..., Any]) -> Callable[..., Any]:
        name = do.__name__
        assert name not in HABITS, name
        HABITS[name] = Habit(name, point, do, **expected)
        return do

    return register


def launch_habit(**expected: Any) -> Callable[[Callable[[Launch], None]], Callable[[Launch], None]]:
    """`habit("launch")`, typed."""
    return habit("launch", **expected)


def kit_habit(
    point: Point, **expected: Any
) -> Callable[[Callable[[Kit], None]], Callable[[Kit], None]]:
    """`habit` of what a program does with its kit, typed."""
    return habit(point, **expected)
