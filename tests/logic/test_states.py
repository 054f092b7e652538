"""The states of a worker: the table is whole, and the diagram in the docs is drawn from it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.supervisor.rules.states import (
    CRASHED,
    CRASHED_STARTING,
    STARTING,
    STATES,
    TRANSITIONS,
    Event,
    State,
    after,
)

ROOT = Path(__file__).parent.parent.parent


def reachable() -> set[State]:
    found = {STARTING}
    todo = [STARTING]
    while todo:
        state = todo.pop()
        for changes in TRANSITIONS.values():
            following = changes.get(state)
            if following is not None and following not in found:
                found.add(following)
                todo.append(following)
    return found


def test_every_state_can_be_reached_and_no_other() -> None:
    assert reachable() == set(STATES)


@given(st.lists(st.sampled_from(list(Event))))
def test_a_worker_that_leaves_never_gets_runs_again_and_one_that_started_stays_started(
    events: list[Event],
) -> None:
    state = STARTING
    for event in events:
        if state not in TRANSITIONS[event]:
            with pytest.raises(ValueError, match=state.name):
                after(state, event)
            continue
        before, state = state, after(state, event)
        assert state.is_leaving or not before.is_leaving
        assert state.has_started or not before.has_started
        assert not (state.is_leaving and state.gets_runs)
        assert state.keeps_place or not state.gets_runs


def test_a_crash_and_a_kill_can_come_in_any_state_that_they_could_matter_in() -> None:
    assert set(TRANSITIONS[Event.CRASHED]) == set(STATES) - {CRASHED, CRASHED_STARTING}
    assert {state for state in STATES if state not in TRANSITIONS[Event.CONDEMNED]} == {
        state
        for state in STATES
        if state.name in ("DISMISSED", "TEARING_DOWN")  # it has no run
    }


def test_the_diagram_in_the_docs_is_the_table() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "state_diagram.py"))
    page = tool["PAGE"].read_text()
    assert tool["page_with_diagram"](page) == page
    without = page.replace(tool["diagram"](), "another diagram\n")
    assert without != page == tool["page_with_diagram"](without)
