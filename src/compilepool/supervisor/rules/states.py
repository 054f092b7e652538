"""The states of a worker, and the state that each event leads to.

`TRANSITIONS` is the only place that defines this. `tools/state_diagram.py` draws the diagram in
docs/scheduling.md from it, and a test checks that the two agree.
"""

from __future__ import annotations

from enum import Enum


class State:
    """One state. States are compared by identity.

    Attributes:
        name: the state's name.
        meaning: what a worker in this state does, in one line.
        gets_runs: whether the worker may get more runs.
        has_started: whether its process has said that it is ready. A worker that is told to exit or
            is killed counts as started: its death is no failure to start.
        is_leaving: whether the worker is about to end, gets no runs and does not count as busy.
        keeps_place: whether the worker counts against `max_workers`; if not, a successor may
            start already.
    """

    __slots__ = ("gets_runs", "has_started", "is_leaving", "keeps_place", "meaning", "name")

    def __init__(
        self,
        name: str,
        meaning: str,
        *,
        gets_runs: bool = False,
        has_started: bool = True,
        is_leaving: bool = False,
        keeps_place: bool = False,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.gets_runs = gets_runs
        self.has_started = has_started
        self.is_leaving = is_leaving
        self.keeps_place = keeps_place

    def __repr__(self) -> str:
        return self.name


STARTING = State(
    "STARTING",
    "Its process starts. Its first run may be in its socket already.",
    gets_runs=True,
    has_started=False,
    keeps_place=True,
)
READY = State("READY", "It runs what it gets.", gets_runs=True, keeps_place=True)
TEARING_DOWN = State(
    "TEARING_DOWN",
    "It still tears down what its last run has left, and gets no other run until it has.",
    keeps_place=True,
)
STARTING_LAST_RUN = State(
    "STARTING_LAST_RUN",
    "Its process starts, with the only run that it may have.",
    has_started=False,
)
LAST_RUN = State("LAST_RUN", "It has got the last run that it may have.")
STARTING_EXPIRING = State(
    "STARTING_EXPIRING",
    "Its process starts, from a fork server that has been replaced.",
    has_started=False,
)
EXPIRING = State("EXPIRING", "It finishes the runs that it has, and gets no others.")
DISMISSED = State("DISMISSED", "It was told to exit. It has no run.", is_leaving=True)
CRASHED_STARTING = State(
    "CRASHED_STARTING",
    "It crashed before it was ready, and is inspected.",
    has_started=False,
    is_leaving=True,
    keeps_place=True,
)
CRASHED = State("CRASHED", "It crashed, and is inspected.", is_leaving=True)
CONDEMNED = State("CONDEMNED", "It is killed, because its run must end.", is_leaving=True)

STATES = (
    STARTING,
    READY,
    TEARING_DOWN,
    STARTING_LAST_RUN,
    LAST_RUN,
    STARTING_EXPIRING,
    EXPIRING,
    DISMISSED,
    CRASHED_STARTING,
    CRASHED,
    CONDEMNED,
)


class Event(Enum):
    """What happens to a worker, except for its death, which ends every state."""

    SAID_READY = "it says that it is ready"
    GOT_LAST_RUN = "it gets the last run that it may have"
    GAVE_BACK_RUN = "a run is taken back unread"
    TEARS_DOWN = "it turns out to tear down for long"
    HAS_TORN_DOWN = "it has torn down"
    REPLACED = "a successor takes over"
    DISMISSED = "it is told to exit"
    CRASHED = "it crashes"
    CONDEMNED = "its run must end"


TRANSITIONS: dict[Event, dict[State, State]] = {
    Event.SAID_READY: {
        STARTING: READY,
        STARTING_LAST_RUN: LAST_RUN,
        STARTING_EXPIRING: EXPIRING,
        CRASHED_STARTING: CRASHED,
        DISMISSED: DISMISSED,
        CONDEMNED: CONDEMNED,
    },
    Event.GOT_LAST_RUN: {
        STARTING: STARTING_LAST_RUN,
        READY: LAST_RUN,
    },
    Event.GAVE_BACK_RUN: {
        STARTING: STARTING,
        READY: READY,
        STARTING_LAST_RUN: STARTING,
        LAST_RUN: READY,
        STARTING_EXPIRING: STARTING_EXPIRING,
        EXPIRING: EXPIRING,
        CRASHED_STARTING: CRASHED_STARTING,
        CRASHED: CRASHED,
        CONDEMNED: CONDEMNED,
    },
    Event.TEARS_DOWN: {READY: TEARING_DOWN},
    Event.HAS_TORN_DOWN: {TEARING_DOWN: READY},
    Event.REPLACED: {
        STARTING: STARTING_EXPIRING,
        READY: EXPIRING,
        TEARING_DOWN: EXPIRING,
        STARTING_LAST_RUN: STARTING_EXPIRING,
        LAST_RUN: EXPIRING,
        STARTING_EXPIRING: STARTING_EXPIRING,
        EXPIRING: EXPIRING,
        DISMISSED: DISMISSED,
        CRASHED_STARTING: CRASHED_STARTING,
        CRASHED: CRASHED,
        CONDEMNED: CONDEMNED,
    },
    Event.DISMISSED: {
        STARTING: DISMISSED,
        READY: DISMISSED,
        TEARING_DOWN: DISMISSED,
        STARTING_LAST_RUN: DISMISSED,
        LAST_RUN: DISMISSED,
        STARTING_EXPIRING: DISMISSED,
        EXPIRING: DISMISSED,
    },
    Event.CRASHED: {
        STARTING: CRASHED_STARTING,
        READY: CRASHED,
        TEARING_DOWN: CRASHED,
        STARTING_LAST_RUN: CRASHED_STARTING,
        LAST_RUN: CRASHED,
        STARTING_EXPIRING: CRASHED_STARTING,
        EXPIRING: CRASHED,
        DISMISSED: DISMISSED,
        CONDEMNED: CONDEMNED,
    },
    Event.CONDEMNED: {
        STARTING: CONDEMNED,
        READY: CONDEMNED,
        STARTING_LAST_RUN: CONDEMNED,
        LAST_RUN: CONDEMNED,
        STARTING_EXPIRING: CONDEMNED,
        EXPIRING: CONDEMNED,
        CRASHED_STARTING: CONDEMNED,
        CRASHED: CONDEMNED,
        CONDEMNED: CONDEMNED,
    },
}


def after(state: State, event: Event) -> State:
    """The state that an event leads to.

    Raises:
        ValueError: the event cannot happen in this state.
    """
    try:
        return TRANSITIONS[event][state]
    except KeyError:
        raise ValueError(f"a worker that is {state} cannot have that {event.value}") from None
