"""`compilepool replay --gdb`, and the process that runs a job alone in it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.linux.spawn import process_command
from tests.crashed_jobs import keep_call, options
from tests.processes.replays import (
    Reverser,
    compilepool,
    crash,
    exit_if_state_is,
    initialize,
    reject,
)


def run_in_gdb(folder: Path, *commands: str) -> str:
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    ended = compilepool("replay", "--gdb", folder, stdin="\n".join([*commands, "quit\n"]))
    output = ended.stdout + ended.stderr
    if "ptrace: Operation not permitted" in output or "Could not trace" in output:
        pytest.skip("this sandbox forbids ptrace")
    return output


def test_gdb_stops_where_it_crashes_as_often_as_it_is_run(root: Path) -> None:
    env = {**os.environ, "OF_THE_JOB": "yes"}
    folder = keep_call(root, crash, env=env)
    output = run_in_gdb(folder, "bt", "show environment OF_THE_JOB", "run", "bt 1")
    assert output.startswith("replaying job 'softmax'")
    assert output.count("received signal SIGSEGV") == 2
    assert "#0 " in output
    assert "OF_THE_JOB = yes" in output
    assert list(root.iterdir()) == [folder]


def test_gdb_says_how_a_job_that_does_not_crash_has_ended(root: Path) -> None:
    output = run_in_gdb(keep_call(root, reject))
    assert "ValueError: no such tile\ncompilepool: the job has raised, and not crashed" in output
    assert "exited normally" in output


def test_without_gdb_one_line_says_so(root: Path, tmp_path: Path) -> None:
    ended = compilepool("replay", "--gdb", keep_call(root, crash), path=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (2, "gdb is not installed\n")


def run_alone(folder: Path, seed: str = "-") -> subprocess.CompletedProcess[str]:
    """Run a job in a process of its own, as gdb does it."""
    with KeptCrash.open(folder) as kept:
        payloads = [kept.config().payload(inline_limit=-1), kept.call()]
        startup, env = kept.startup(), kept.env()
    if startup is not None:
        payloads.append(startup)
    fds = [payload.fd for payload in payloads]
    command = [*process_command(["-P"], "compilepool.worker.alone"), seed, *map(str, fds)]
    try:
        return subprocess.run(
            command, pass_fds=fds, env=env, capture_output=True, text=True, check=False
        )
    finally:
        for payload in payloads:
            payload.close()


def test_alone_no_signal_is_handled(root: Path) -> None:
    folder = keep_call(root, crash, env={**os.environ, "PYTHONFAULTHANDLER": "1"})
    ended = run_alone(folder)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGSEGV, "", "")


def test_alone_the_job_finds_all_as_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = options(
        preload=["json.tool"],
        initializer=initialize,
        initargs=("x",),
        serializer=Reverser(),
    )
    expected = (dict(os.environ), sys.argv, sys.path, str(tmp_path), ["json.tool"], "x")
    ended = run_alone(keep_call(root, exit_if_state_is, expected, of=pool))
    assert (ended.returncode, ended.stdout, ended.stderr) == (9, "", "")


def is_worker() -> None:
    from compilepool import in_toplevel_process

    assert not in_toplevel_process()


def test_alone_the_job_is_in_a_worker(root: Path) -> None:
    ended = run_alone(keep_call(root, is_worker))
    assert ended.stdout == "compilepool: the job has returned, and not crashed\n"
    assert (ended.returncode, ended.stderr) == (0, "")


def print_random_number() -> None:
    print(random.random())


def test_alone_random_numbers_start_from_the_seed(root: Path) -> None:
    folder = keep_call(root, print_random_number)
    drawn, *_ = run_alone(folder, "3").stdout.split()
    assert float(drawn) == random.Random(3).random()
