"""Progress is shown on a terminal, and nowhere else; and when it ends, nothing is left of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import pytest

from tests.proc import PATIENCE_S
from tests.programs.gates import Gate
from tests.programs.running import HERE, Doomed, family_of
from tests.screens import COLUMNS, ROWS, Screen

WAYS = ["pool", "as_completed"]
UNSET = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


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

    def __exit__(self, *_: object) -> None:
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
