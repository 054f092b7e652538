"""A program that forks with a pool: the child has no use of it, and disturbs nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.proc import children
from tests.programs.running import Program


def test_a_forked_child_has_no_use_of_the_pool_and_disturbs_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "copies", str(gate)) as program:
        assert program.read_line() == "paused"
        program.write("\n")
        assert program.read_line() == "ended: 3"
        for name, job in ("running", "pause"), ("waiting", "add"):
            said = program.read_line()
            assert said.startswith(f"{name}: PoolClosed: job '{job}' belongs to the process that")
            assert said.endswith("make a new pool here")
        said = program.read_line()
        assert re.fullmatch(
            f"submit: .*this pool belongs to process {program.pid}, .*; make a new pool here", said
        )
        assert program.read_line() == "cancel: False"
        assert program.read_line() == "own: 15"
        assert program.read_line() == "own, left: 19"
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: 5, 7, 2"
        assert program.wait() == 0
        assert_quiet(program)


def test_callbacks_are_not_called_in_a_forked_child(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "with_callback", str(gate)) as program:
        assert program.read_line() == "paused"
        program.write("\n")
        assert program.read_line().startswith("child: PoolClosed")
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "called back with 5"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_future_whose_result_is_just_being_read_ends_in_a_forked_child() -> None:
    with Program("forking.py", "while_reading") as program:
        assert program.read_line().startswith("child: PoolClosed")
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: unpickled"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_forked_child_may_go_on_with_the_parents_iteration(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "within_as_completed", str(gate)) as program:
        assert sorted([program.read_line(), program.read_line()]) == ["first: 3", "paused"]
        program.write("\n")
        assert [program.read_line() for _ in range(2)] == ["child: PoolClosed"] * 2
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: [5, 7]"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_program_may_fork_while_other_threads_use_the_pool() -> None:
    with Program("forking.py", "under_load") as program:
        assert program.read_line() == "exit codes {0}, wrong results []"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_pool_works_in_a_daemonic_process_of_multiprocessing() -> None:
    with Program("forking.py", "daemonic") as program:
        assert program.read_line() == "in daemonic child: 3"
        assert program.read_line() == "exit code 0"
        assert program.wait() == 0
        assert_quiet(program)


def assert_quiet(program: Program) -> None:
    assert program.stderr() == ""
    assert program.rest() == ""
    assert not children(program.pid)
