"""Progress is shown on a terminal, and nowhere else; and when it ends, nothing is left of it."""

from __future__ import annotations

import concurrent.futures
import fcntl
import gc
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from compilepool import CompilePool, as_completed, report_phase
from compilepool.observe.board import Board
from compilepool.observe.observer import RunningJob
from tests.processes import PATIENCE_S, pool_process, wait_until
from tests.programs.gates import Gate, wait_at
from tests.programs.running import HERE, Doomed, family_of

COLUMNS, ROWS = 100, 60
WAYS = ["pool", "as_completed"]
UNSET = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Screen:
    """What a terminal shows of the bytes that it gets."""

    def __init__(self) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self.received = b""

    def feed(self, data: bytes) -> None:
        self.received += data
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """Those that are not empty."""
        return [line.strip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def has_cursor(self) -> bool:
        return not self._screen.cursor.hidden


class Shown(Screen):
    """A run of `progress.py` in a terminal. It ends, by SIGKILL if need be, with the `with` block.

    Args:
        way: who shows progress.
        scenario: what happens.
        folder: for the gates of its jobs, of which all are closed.
        piped: 1 or 2: its output or error output is a pipe instead, which `run_to_end` reads.
        environment: variables that it has.
    """

    def __init__(
        self, way: str, scenario: str, folder: Path, *, piped: int = 0, **environment: str
    ) -> None:
        super().__init__()
        self.gates = {name: Gate(folder / name) for name in "abc"}
        self._terminal, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in UNSET}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "progress.py", way, scenario, folder],
            stdin=slave,
            stdout=subprocess.PIPE if piped == 1 else slave,
            stderr=subprocess.PIPE if piped == 2 else slave,
            env={**inherited, "TERM": "xterm-256color", **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.pid = self._process.pid
        self.piped = b""
        self.code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        os.close(self._terminal)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        for gate in self.gates.values():
            gate.open()

    def wait_for(self, *patterns: str) -> None:
        """Wait until each pattern matches a whole line of those that are shown."""
        deadline = time.monotonic() + PATIENCE_S
        missing = list(patterns)
        while missing:
            assert self._read(deadline), f"no {missing} in:\n{self.text}"
            missing = [
                pattern
                for pattern in patterns
                if not any(re.fullmatch(pattern, line) for line in self.lines)
            ]

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def run_to_end(self) -> None:
        """Until it has ended, and all that has its terminal open."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                self.piped += pipe.read()
        self.code = self._process.wait(PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more comes after:\n{self.text}"
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # EIO: nobody has it open any more
            return False
        self.feed(data)
        return True


def total(text: str, failed: int = 0) -> str:
    label = f"compiling, {failed} failed" if failed else "compiling"
    return rf"\S {label} .* {text} .*"


def row(name: str) -> str:
    return rf"{name}  ptxas +\d+\.\d s"


BOTH_RUN = (total("0/3"), row("a"), row("b"))


@pytest.mark.parametrize("way", WAYS)
def test_progress_shows_what_is_done_what_runs_and_what_has_failed(
    tmp_path: Path, way: str
) -> None:
    with Shown(way, "show", tmp_path) as shown:
        shown.wait_for(*BOTH_RUN)
        assert len(shown.lines) == 3
        assert not shown.has_cursor
        shown.gates["a"].open()
        shown.wait_for("done a", total("1/3"), row("b"), row("c"))
        assert len(shown.lines) == 4
        shown.gates["c"].open()
        failed = "failed c  LookupError: no register .*"
        shown.wait_for(failed, "done c", total("2/3", failed=1), row("b"))
        shown.gates["b"].open()
        shown.run_to_end()
        assert shown.code == 0
        assert shown.has_cursor
        (failure,) = (line for line in shown.lines if re.fullmatch(failed, line))
        said = [line for line in shown.lines if line != failure]
        assert said == ["done a", "done c", "done b", "the end"]


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_leaves_nothing_of_the_progress_and_no_process(tmp_path: Path, way: str) -> None:
    with Shown(way, "show", tmp_path) as shown:
        shown.wait_for(*BOTH_RUN)
        with Doomed(family_of(shown.pid)) as family:
            shown.press(b"\x03")
            shown.run_to_end()
            assert family.wait()
        assert shown.code == -signal.SIGINT
        assert shown.has_cursor
        assert shown.lines[-1] == "KeyboardInterrupt"
        assert not [line for line in shown.lines if re.search(r"[0-9]/3 |ptxas", line)]
        assert shown.text.count("Traceback") == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_exits_leaves_nothing_of_the_progress(tmp_path: Path, way: str) -> None:
    with Shown(way, "exit", tmp_path) as shown:
        shown.wait_for(*BOTH_RUN)
        shown.gates["a"].open()
        shown.run_to_end()
        assert shown.code == 3
        assert shown.has_cursor
        assert shown.lines == ["done a"]


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}], ids=["", "with colours wanted"])
def test_nothing_is_written_where_there_is_no_terminal(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with Shown("both", "unseen", tmp_path, piped=2, **environment) as shown:
        shown.run_to_end()
        assert shown.code == 0
        assert shown.piped == b""
        assert shown.received == b"the end\r\n"


def test_nothing_is_written_on_a_terminal_that_cannot_show_it(tmp_path: Path) -> None:
    with Shown("both", "unseen", tmp_path, TERM="dumb") as shown:
        shown.run_to_end()
        assert shown.code == 0
        assert shown.received == b"the end\r\n"


def test_output_that_is_no_terminal_gets_what_the_program_prints_meanwhile(
    tmp_path: Path,
) -> None:
    with Shown("pool", "show", tmp_path, piped=1) as shown:
        shown.wait_for(*BOTH_RUN)
        shown.gates["a"].open()
        shown.wait_for(total("1/3"), row("b"), row("c"))
        shown.gates["c"].open()
        shown.wait_for(total("2/3", failed=1), row("b"))
        shown.gates["b"].open()
        shown.run_to_end()
        assert shown.piped == b"done a\ndone c\ndone b\nthe end\n"
        assert len(shown.lines) == 1
        assert shown.lines[0].startswith("failed c  LookupError: ")


@pytest.mark.parametrize("way", WAYS)
def test_a_forked_child_does_not_draw(tmp_path: Path, way: str) -> None:
    with Shown(way, "fork", tmp_path) as shown:
        shown.wait_for(*BOTH_RUN)
        shown.gates["a"].open()
        shown.wait_for("children: .*", total("1/3"), row("b"), row("c"))
        shown.gates["c"].open()
        shown.gates["b"].open()
        shown.run_to_end()
        assert shown.code == 0
        assert "children: [0, 0, 0, 0, 0]" in shown.lines
        assert shown.has_cursor
        said = {path.read_text() for path in tmp_path.glob("child *")}
        assert said == {"said by the child\nand on its error output\n"}


def test_names_phases_and_errors_of_jobs_cannot_command_the_terminal(tmp_path: Path) -> None:
    # As `printable` has it: what is no blank is replaced, what is one becomes " ".
    odd = re.escape("\N{REPLACEMENT CHARACTER}]0;taken\N{REPLACEMENT CHARACTER}") + " {1,2}.*"
    with Shown("pool", "odd", tmp_path) as shown:
        shown.wait_for(total("0/3"), f"a{odd}{odd} s", f"b{odd}{odd} s")
        shown.gates["a"].open()
        shown.wait_for(f"c{odd}{odd} s")
        shown.gates["c"].open()
        shown.gates["b"].open()
        shown.run_to_end()
        assert shown.code == 0
        failed = f"failed c{odd}  LookupError: no register .*"
        assert any(re.fullmatch(failed, line) for line in shown.lines)
        for command in (b"\x07", b"\x1b]", b"\x1b[2J"):
            assert command not in shown.received


# A display of the user's


class Drawn(io.StringIO):
    """A file that is a terminal, says the one who has it draw."""

    @property
    def screen(self) -> Screen:
        screen = Screen()
        screen.feed(self.getvalue().replace("\n", "\r\n").encode())
        return screen


def progress_on(file: io.TextIOBase, **options: Any) -> Progress:
    console = Console(
        file=file,  # type: ignore[arg-type] # which asks for more than it needs
        force_terminal=True,
        width=COLUMNS,
        height=ROWS,
        _environ={"TERM": "xterm-256color"},
    )
    # pytest has output and error output.
    options = {"redirect_stdout": False, "redirect_stderr": False, **options}
    return Progress(console=console, **options)


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


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


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


def test_iteration_that_is_broken_off_leaves_nothing_of_the_progress(gate: Gate) -> None:
    progress = progress_on(Drawn())
    with CompilePool(2) as pool, gate:
        futures: list[Future[Any]] = [pool.submit(wait_at, gate.path), pool.submit(abs, 1)]
        for future in as_completed(futures, progress=progress):
            assert future is futures[1]
            assert wait_until(lambda: bool(progress.tasks))
            break
        assert not progress.tasks
        assert not progress.live.is_started


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


def test_what_is_looked_at_too_late_is_not_shown_any_more(gate: Gate) -> None:
    progress = progress_on(Drawn())
    with CompilePool(1) as pool, gate:
        future = pool.submit(wait_at, gate.path)
        assert wait_until(future.running)
        # The look waits for what it says, and the iteration does not wait for the look.
        supervisor = pool_process("supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                list(as_completed([future], 0.3, progress=progress))
            assert wait_until(
                lambda: all(
                    thread.name != "compilepool sampler" for thread in threading.enumerate()
                )
            )
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert not progress.tasks
        assert not progress.live.is_started


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


# What is on the board


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


# The futures of as_completed


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.mark.parametrize("is_shown", [True, False])
def test_as_completed_yields_what_that_of_the_standard_library_does(
    threads: ThreadPoolExecutor, is_shown: bool
) -> None:
    with CompilePool(2) as pool:
        cancelled: Future[Any] = Future()
        cancelled.cancel()
        cancelled.set_running_or_notify_cancel()  # as executors do
        futures: list[Future[Any]] = [
            pool.submit(abs, -1),
            pool.submit(int, "x"),
            threads.submit(abs, -2),
            threads.submit(int, "y"),
            cancelled,
        ]
        progress = progress_on(Drawn()) if is_shown else False
        yielded = list(as_completed([*futures, futures[0]], progress=progress))
    assert all(future.done() for future in yielded)
    expected = list(concurrent.futures.as_completed(futures))
    assert sorted(map(id, yielded)) == sorted(map(id, expected))


def test_as_completed_yields_each_future_as_soon_as_it_is_done(gate: Gate) -> None:
    with CompilePool(2) as pool, gate:
        slow: Future[Any] = pool.submit(wait_at, gate.path)
        quick: Future[Any] = pool.submit(abs, 1)
        iterator = as_completed([slow, quick], progress=progress_on(Drawn()))
        assert next(iterator) is quick
        assert not slow.done()
        gate.open()
        assert list(iterator) == [slow]


@pytest.mark.parametrize("is_shown", [True, False])
def test_as_completed_raises_timeout_error_as_that_of_the_standard_library_does(
    gate: Gate, is_shown: bool
) -> None:
    progress = progress_on(Drawn())
    with CompilePool(2) as pool, gate:
        quick: Future[Any] = pool.submit(abs, 1)
        quick.result(PATIENCE_S)
        slow: Future[Any] = pool.submit(wait_at, gate.path)
        iterator = as_completed([slow, quick], 0.3, progress=progress if is_shown else False)
        assert next(iterator) is quick
        with pytest.raises(TimeoutError, match=re.escape("1 (of 2) futures unfinished")):
            next(iterator)
    assert not progress.tasks


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


def test_nothing_is_shown_of_other_executors_but_how_many_are_done(gate: Gate) -> None:
    file = Drawn()
    progress = progress_on(file)
    with ThreadPoolExecutor(1) as threads:
        futures: list[Future[Any]] = [threads.submit(wait_at, gate.path)]
        waiter = threading.Thread(target=lambda: list(as_completed(futures, progress=progress)))
        waiter.start()
        try:
            assert wait_until(lambda: "compiling" in file.screen.text)
            assert len(progress.tasks) == 1
        finally:
            gate.open()
            waiter.join(PATIENCE_S)
    assert not progress.tasks
