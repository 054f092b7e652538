"""The live view of `compilepool top`, with real pools: by textual's pilot, and in terminals."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest

from tests.pools_seen import Seen
from tests.proc import PATIENCE_S
from tests.sharing import Program, programs

pytest.importorskip("textual")

from textual.pilot import Pilot

from compilepool.cli.top.app import Table, TopApp
from compilepool.cli.top.screens import TextScreen


@pytest.fixture
def busy(runtime: Path) -> Iterator[Program]:
    """A program with a private pool: a crash, a job that hangs, and one that waits."""
    with programs(1, "max_workers=1") as (program,):
        program.run("pool.options(name='bad').submit(jobs.crash).exception()")
        program.run("futures.update(hangs=pool.options(name='hangs').submit(jobs.sleep, 1000))")
        program.run("futures.update(waits=pool.options(name='waits').submit(jobs.sleep, 1000))")
        yield program
        program.end()


def watch(runtime: Path, act: Callable[[Pilot[Any], TopApp], Awaitable[None]]) -> None:
    """Run the live view without a terminal, and act once it shows the job that hangs."""

    async def run() -> None:
        app = TopApp(Seen(runtime), interval_s=0.05)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await until(pilot, lambda: "hangs" in shown(app, "jobs"))
            await act(pilot, app)

    asyncio.run(run())


def test_a_look_that_comes_while_the_view_ends_disturbs_nobody(
    runtime: Path, busy: Program
) -> None:
    looks = []

    async def run() -> None:
        app = TopApp(Seen(runtime), interval_s=0.05)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "hangs" in shown(app, "jobs"))
            prune = app._prune

            async def prune_and_look(*nodes: Any, **options: Any) -> None:
                await prune(*nodes, **options)
                looks.append(await app._look().wait())

            app._prune = prune_and_look  # type: ignore[method-assign, assignment] # until the end

    asyncio.run(run())
    assert looks


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.02)


def shown(app: TopApp, id: str) -> str:
    """The text of a table."""
    table = app.screen_stack[0].query_one(f"#{id}", Table)
    rows = [table.get_row_at(number) for number in range(table.row_count)]
    return "\n".join(" ".join(map(str, row)) for row in rows)


def test_the_tables_show_pools_clients_jobs_and_failures(runtime: Path, busy: Program) -> None:
    async def act(_pilot: Pilot[Any], app: TopApp) -> None:
        assert str(busy.pid) in shown(app, "pools")
        assert str(busy.pid) in shown(app, "clients")
        running, waiting = shown(app, "jobs").splitlines()
        assert ("busy" in running, "queued" in waiting) == (True, True)
        assert "SIGSEGV" in shown(app, "failures")

    watch(runtime, act)


def test_keys_sort_and_filter(runtime: Path, busy: Program) -> None:
    async def act(pilot: Pilot[Any], app: TopApp) -> None:
        await pilot.press("s", "s", "r")
        await pilot.press("f", *"nobody", "enter")
        await until(pilot, lambda: shown(app, "jobs") == shown(app, "pools") == "")
        await pilot.press("f", *["backspace"] * 6, *str(busy.pid), "enter")
        await until(pilot, lambda: "hangs" in shown(app, "jobs"))

    watch(runtime, act)


def test_a_key_shows_stacks_and_enter_shows_a_failure(runtime: Path, busy: Program) -> None:
    async def act(pilot: Pilot[Any], app: TopApp) -> None:
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, TextScreen))
        assert isinstance(app.screen, TextScreen)
        assert "in sleep" in app.screen.text
        await pilot.press("escape")
        app.screen.query_one("#failures", Table).focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TextScreen))
        assert isinstance(app.screen, TextScreen)
        assert "Native traceback" in app.screen.text
        await pilot.press("escape")

    watch(runtime, act)


def test_a_job_is_cancelled_once_the_user_is_sure(runtime: Path, busy: Program) -> None:
    async def act(pilot: Pilot[Any], app: TopApp) -> None:
        await pilot.press("x", "n")
        assert "hangs" in shown(app, "jobs")
        await pilot.press("x", "y")
        await until(pilot, lambda: "hangs" not in shown(app, "jobs"))

    watch(runtime, act)
    busy.run("__import__('concurrent.futures').futures.wait([futures['hangs']], 20)")
    assert busy.run("[each.cancelled() for each in futures.values()]") == [True, False]


def test_a_pool_is_quiesced_after_its_jobs(runtime: Path, busy: Program) -> None:
    async def act(pilot: Pilot[Any], app: TopApp) -> None:
        await pilot.press("z", "y")
        await until(
            pilot, lambda: any("sleeps" in str(each.message) for each in app._notifications)
        )
        busy.run("[each.cancel() for each in futures.values()]")
        await until(pilot, lambda: "quiesced" in shown(app, "pools"))

    watch(runtime, act)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_in_a_terminal_all_tables_are_seen_and_q_quits(
    runtime: Path, busy: Program, columns: int, rows: int
) -> None:
    Seen(runtime).wait_for_pools()
    terminal, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    top = subprocess.Popen(
        [sys.executable, "-m", "compilepool.cli.main", "top", "--client", str(busy.pid)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(slave)
    try:
        wanted = ["1 pool, 1 client", "BUSY", "hangs", "waits", "FAILURE", "SIGSEGV", "Quiesce"]
        deadline = time.monotonic() + PATIENCE_S
        while not all(each in "\n".join(screen.display) for each in wanted):
            assert time.monotonic() < deadline, "\n".join(screen.display)
            read(terminal, stream)
        os.write(terminal, b"q")
        while read(terminal, stream):
            assert time.monotonic() < deadline + PATIENCE_S
        assert top.wait(PATIENCE_S) == 0
    finally:
        top.kill()
        top.wait()
        os.close(terminal)


def read(terminal: int, stream: Any) -> bool:
    """Show what the program has written, if anything. Returns whether it may write more."""
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            stream.feed(os.read(terminal, 1 << 16))
        except OSError:  # the program has closed it
            return False
    return True
