"""`worker_initializer`, in the workers of the standard library's own process pool."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from compilepool import has_parent_changed, in_toplevel_process, worker_initializer
from tests.conftest import MARK
from tests.proc import command_line, is_alive, pids_with_environment, wait_until
from tests.programs.running import Doomed, Program, family_of

CONTEXTS = ["fork", "spawn", "forkserver"]
THREADS = ["main", "other"]


@pytest.fixture(autouse=True)
def leave_temporary_files(
    leaves_nothing_behind: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """multiprocessing's fork server has its socket in a directory, which stays if it is killed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("mp")))


@contextmanager
def executor(
    context: str, job: str, thread: str = "main", *, is_in_terminal: bool = False
) -> Iterator[tuple[Program, list[int]]]:
    """The program `executor.py`, begun, and the pids of the workers that have a job."""
    arguments = (context, job, thread)
    with Program("executor.py", *arguments, is_in_terminal=is_in_terminal) as program:
        lines = [program.read_line() for _ in range(3)]
        lines.remove("begun")
        yield program, sorted({int(line.removeprefix("ready ")) for line in lines})


def lifelines() -> list[int]:
    """The processes that kill workers whose parent the kernel does not watch for them."""
    marked = pids_with_environment(f"{MARK}={os.environ[MARK]}")
    return [pid for pid in marked if "lifeline.py" in command_line(pid)]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_worker_knows_that_it_is_one_and_that_its_parent_lives(context: str) -> None:
    with executor(context, "idle") as (program, _):
        assert program.ask("identity") == "worker (False, False), here (True, False)"


def test_this_process_is_no_worker() -> None:
    assert in_toplevel_process()
    assert not has_parent_changed()


def test_a_worker_that_survives_its_parent_is_told_so() -> None:
    with Program("orphaned_worker.py") as program:
        assert program.read_line() == "top level: True, parent changed: False"
        assert program.read_line() == "top level: False, parent changed: False"
        assert program.read_line() == "top level: False, parent changed: True"
        assert program.wait() == 0
        assert program.rest() == program.stderr() == ""


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("job", ["idle", "busy", "holds_gil"])
@pytest.mark.parametrize("thread", THREADS)
def test_workers_live_as_long_as_the_parent_and_no_longer(
    context: str, job: str, thread: str
) -> None:
    with executor(context, job, thread) as (program, workers):
        # A worker that died of the end of its parent's thread would have broken the executor.
        assert program.ask("work").startswith("worked ")
        assert all(is_alive(worker) for worker in workers)
        assert bool(lifelines()) == (context == "forkserver" or thread == "other")
        below = [*family_of(program.pid), *lifelines()]
        with Doomed(workers) as doomed, Doomed(below) as all_of_it:
            program.kill()
            assert doomed.wait()
            assert all_of_it.wait()
            assert not all_of_it.alive()
        assert not lifelines()


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("thread", THREADS)
def test_nothing_is_left_when_the_executor_is_shut_down(context: str, thread: str) -> None:
    with executor(context, "idle", thread) as (program, workers):
        assert program.ask("shutdown") == "shut down"
        assert not any(is_alive(worker) for worker in workers)
        assert wait_until(lambda: not lifelines())
        program.write("exit\n")
        assert program.wait() == 0
        assert program.stderr() == ""


@pytest.mark.parametrize("context", CONTEXTS)
def test_ctrl_c_in_a_terminal_does_not_reach_workers(context: str) -> None:
    with executor(context, "busy", is_in_terminal=True) as (program, workers):
        program.write("\x03")
        # It may be about to read from the terminal, and see the signal only when it has read.
        program.write("work\n")
        assert program.read_line() == "interrupted"
        assert program.read_line().startswith("worked ")
        assert all(is_alive(worker) for worker in workers)
        program.kill()
        assert program.rest() == ""


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_crash_of_a_worker_leaves_its_python_traceback_on_stderr(context: str) -> None:
    with executor(context, "idle") as (program, _):
        assert program.ask("crash") == "broken"
        program.write("exit\n")
        assert program.wait() == 0
        stderr = program.stderr()
        assert stderr.startswith("Fatal Python error: Segmentation fault\n")
        assert re.search(r'File ".*executor.py", line \d+ in crash\n', stderr)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("1", TypeError, "parent_pid must be an int .* not '1'"),
        (None, TypeError, "parent_pid must be an int"),
        (1.0, TypeError, "parent_pid must be an int"),
        (0, ValueError, "is not a pid"),
        (-1, ValueError, "is not a pid"),
        pytest.param(
            os.getpid(),
            ValueError,
            "in a worker, not in the pool's owner",
            id="this process",
        ),
    ],
)
def test_a_wrong_argument_is_named_and_changes_nothing(
    argument: Any, error: type[Exception], message: str
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(error, match=message):
        worker_initializer(argument)
    assert signal.getsignal(signal.SIGINT) is handler
    assert in_toplevel_process()
