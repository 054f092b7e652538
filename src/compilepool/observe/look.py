"""A pool at one moment, as it is shown."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.observe.stats import Memory
from compilepool.wire.light_typing import NamedTuple


class RunningJob(NamedTuple):
    """A job that runs.

    Attributes:
        id: its number, unique within the pool.
        name: its name.
        seconds: for how long it has run.
        phase: what it calls what it does; empty if nothing.
    """

    id: int
    name: str
    seconds: float
    phase: str


class Look(NamedTuple):
    """A pool.

    Attributes:
        time: when it was looked at, by `time.monotonic()`.
        unfinished: how many jobs have not ended.
        queued: how many of them wait.
        running: those that run, the oldest first.
        memory: tells what its processes take; slow.
    """

    time: float
    unfinished: int
    queued: int
    running: list[RunningJob]
    memory: Callable[[], Memory]
