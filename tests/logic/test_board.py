"""What is on the board of a progress display."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from compilepool import CompilePool, as_completed
from compilepool.observe.board import Board
from compilepool.observe.observer import RunningJob
from tests.screens import Drawn, progress_on


def jobs(count: int) -> list[RunningJob]:
    return [RunningJob(number, f"job {number}", 1.5, "") for number in range(count)]


def test_of_many_jobs_that_run_the_oldest_are_shown() -> None:
    file = Drawn()
    with progress_on(file, auto_refresh=False) as progress:
        board = Board("compiling", progress)
        board.show(3, 20, jobs(12))
        progress.refresh()
        starts = [" ".join(line.split()[:3]).rstrip(" \u2501") for line in file.screen.lines]
        assert starts[1:] == [*(f"job {number}" for number in range(8)), "and 4 more"]
        board.show(19, 20, jobs(1))
        progress.refresh()
        assert len(file.screen.lines) == 2
        board.close()
        board.close()
        assert not progress.tasks


@given(st.text(), st.text())
@settings(max_examples=30)
def test_what_is_shown_of_a_job_fits_a_line_and_is_printable(name: str, phase: str) -> None:
    progress = progress_on(Drawn(), auto_refresh=False)
    board = Board("compiling", progress)
    board.show(0, 1, [RunningJob(1, name, 0.0, phase)])
    shown = progress.tasks[1].description
    board.close()
    assert shown.isprintable()
    if len(name) > 60:
        assert len(shown) - len(phase) < 65


def test_as_completed_of_nothing_yields_nothing() -> None:
    file = Drawn()
    assert list(as_completed([], progress=progress_on(file))) == []
    assert file.getvalue() == ""


def test_progress_of_a_wrong_type_is_refused_at_once() -> None:
    wrong: Any
    for wrong in (3, None, "yes", Progress):
        with pytest.raises(TypeError, match="progress must be True, False or a rich"):
            as_completed([], progress=wrong)
        with pytest.raises(TypeError, match="progress must be True, False or a rich"):
            CompilePool(1, progress=wrong)
