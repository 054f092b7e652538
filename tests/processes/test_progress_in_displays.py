"""Progress in a display of the user's, which is left as it was."""

from __future__ import annotations

import gc
import io
import os
import pty
import termios
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from rich.progress import Progress

from compilepool import CompilePool, as_completed, report_phase
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at
from tests.screens import Drawn, progress_on

WAYS = ["pool", "as_completed"]


@contextmanager
def shown_in(
    progress: Progress, way: str, gate: Gate, jobs: dict[str, Callable[[], Any]]
) -> Iterator[list[Future[Any]]]:
    """Jobs by their names, which wait at the gate, and are shown. It opens with the end."""
    ended: list[Future[Any]] = []
    with CompilePool(2, progress=progress if way == "pool" else False) as pool:
        assert pool.wait_ready(PATIENCE_S)  # so that jobs that end at once do
        futures: list[Future[Any]] = [
            pool.options(name=name).submit(job) for name, job in jobs.items()
        ]
        shown = progress if way == "as_completed" else False
        waiter = threading.Thread(
            target=lambda: ended.extend(as_completed(futures, progress=shown))
        )
        waiter.start()
        try:
            yield futures
        finally:
            gate.open()
            waiter.join(PATIENCE_S)
    assert sorted(map(id, ended)) == sorted(map(id, futures))


def in_phase(gate: Gate) -> Callable[[], None]:
    """A job."""
    path = gate.path

    def work() -> None:
        report_phase("ptxas")
        wait_at(path)

    return work


@pytest.mark.parametrize(("way", "is_started"), [("pool", True), ("as_completed", False)])
def test_a_display_of_the_users_is_used_and_left_as_it_was(
    gate: Gate, way: str, is_started: bool
) -> None:
    file = Drawn()
    progress = progress_on(file)
    theirs = progress.add_task("theirs", total=5)
    if is_started:
        progress.start()
    with shown_in(progress, way, gate, {"a": in_phase(gate), "b": in_phase(gate)}):
        texts = ("theirs", "compiling", "a  ptxas", "b  ptxas")
        assert wait_until(lambda: all(text in file.screen.text for text in texts))
        assert progress.live.is_started
    assert progress.task_ids == [theirs]
    assert progress.live.is_started == is_started
    progress.stop()
    assert file.screen.has_cursor
    assert [line.split()[0] for line in file.screen.lines] == ["theirs"]


def test_names_of_jobs_are_no_markup_in_a_display_of_the_users(gate: Gate) -> None:
    file = Drawn()
    name = "add[float][/nothing]"
    # Drawn by whoever changes it, so that nothing is hidden in a thread of its own.
    progress = progress_on(file, auto_refresh=False)

    def is_drawn() -> bool:
        progress.refresh()
        return name in file.screen.text

    with shown_in(progress, "pool", gate, {name: in_phase(gate)}):
        assert wait_until(lambda: len(progress.tasks) == 2)
        assert wait_until(is_drawn)


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_from_before_the_display_is_there_is_shown_in_it(gate: Gate, way: str) -> None:
    file = Drawn()
    progress = progress_on(file)
    jobs = {"early": lambda: int("x"), "late": in_phase(gate)}
    with shown_in(progress, way, gate, jobs) as (early, _):
        assert isinstance(early.exception(PATIENCE_S), ValueError)
        assert wait_until(lambda: "late" in file.screen.text)
        assert wait_until(lambda: "failed early  ValueError: " in file.screen.text)
    assert sum(line.startswith("failed") for line in file.screen.lines) == 1


def failure_of(future: Future[Any]) -> BaseException:
    error = future.exception(PATIENCE_S)
    assert error is not None
    return error


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_failure_that_nobody_sees_is_not_kept(is_shown: bool) -> None:
    # pytest has error output, so there is no terminal.
    with CompilePool(1, progress=is_shown, keep_crashes=False) as pool:
        error = weakref.ref(failure_of(pool.submit(os._exit, 1)))

        def is_gone() -> bool:
            gc.collect()
            return error() is None

        assert wait_until(is_gone)


def test_short_jobs_one_after_the_other_draw_nothing() -> None:
    file = Drawn()
    longest_s = 0.0
    with CompilePool(1, progress=progress_on(file)) as pool:
        assert pool.wait_ready(PATIENCE_S)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            begin = time.monotonic()
            pool.submit(abs, 1).result(PATIENCE_S)
            longest_s = max(longest_s, time.monotonic() - begin)
    if longest_s < 0.2:  # else it was no short job, on a busy machine
        assert file.getvalue() == ""


@contextmanager
def terminal() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A terminal's two sides; what is open of them at the end is closed."""
    master, slave = pty.openpty()
    with ExitStack() as stack:
        file = os.fdopen(slave, "w")
        stack.callback(close_quietly, file.close)
        stack.callback(close_quietly, os.close, master)
        yield master, file


def close_quietly(close: Callable[..., object], *arguments: Any) -> None:
    with suppress(OSError):  # it is closed, or what is still to be written cannot be
        close(*arguments)


def failing(gate: Gate) -> Callable[[], None]:
    """A job."""
    path = gate.path

    def fail() -> None:
        wait_at(path)
        raise LookupError("no register")

    return fail


def test_a_terminal_that_is_gone_takes_no_job_with_it(gate: Gate) -> None:
    with terminal() as (master, file):
        progress = progress_on(file, auto_refresh=False)
        pool = CompilePool(1, progress=progress)
        future = pool.submit(failing(gate))
        assert wait_until(lambda: len(progress.tasks) == 2)
        os.close(master)
        gate.open()
        assert isinstance(future.exception(PATIENCE_S), LookupError)
        assert pool.submit(abs, -5).result(PATIENCE_S) == 5
        pool.shutdown()


def test_a_terminal_that_is_held_does_not_hold_jobs(gate: Gate) -> None:
    with terminal() as (_, file):
        progress = progress_on(file, auto_refresh=False)
        with CompilePool(1, progress=progress) as pool:
            future = pool.submit(failing(gate))
            assert wait_until(lambda: len(progress.tasks) == 2)
            termios.tcflow(file, termios.TCOOFF)  # as Ctrl-S does
            try:
                gate.open()
                assert isinstance(future.exception(PATIENCE_S), LookupError)
                assert pool.submit(abs, -5).result(PATIENCE_S) == 5
            finally:
                termios.tcflow(file, termios.TCOON)
