"""Draws the states of a worker into docs/scheduling.md, from the table that the supervisor goes by.

`python tools/state_diagram.py` writes the page. `tests/logic/test_states.py` compares them.
"""

from __future__ import annotations

from pathlib import Path

from compilepool.supervisor.rules.states import STARTING, STATES, TRANSITIONS

PAGE = Path(__file__).parent.parent / "docs" / "scheduling.md"
BEGIN, END = "<!-- worker states -->\n", "<!-- /worker states -->\n"


def diagram() -> str:
    """The diagram in Mermaid's language, and a table of what the states mean."""
    arrows = [
        f"    {before} --> {after}: {event.value}"
        for event, changes in TRANSITIONS.items()
        for before, after in changes.items()
        if before is not after
    ]
    rows = [f"| {state} | {state.meaning} | {_traits(state)} |" for state in STATES]
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {STARTING}",
        *arrows,
        "```",
        "",
        "| state | what the worker does | gets runs / keeps its place |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def page_with_diagram(page: str) -> str:
    """The page with the diagram between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + diagram() + end + after


def _traits(state: object) -> str:
    gets_runs, keeps_place = (getattr(state, name) for name in ("gets_runs", "keeps_place"))
    return f"{'yes' if gets_runs else 'no'} / {'yes' if keeps_place else 'no'}"


if __name__ == "__main__":
    PAGE.write_text(page_with_diagram(PAGE.read_text()))
