"""`compilepool replay`, as users run it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool, WorkerCrashed
from compilepool.client.crashes.crash_folder import CALL, CONFIG, ENVIRON, REPORT, keep
from compilepool.client.crashes.versions import versions
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from tests.crashed_jobs import crashed_job, keep_call, options
from tests.proc import PATIENCE_S, pool_processes
from tests.processes.replays import (
    Reverser,
    compilepool,
    crash,
    exit_if_state_is,
    initialize,
    reject,
)


def edit_report(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    report = json.loads((folder / REPORT).read_text())
    edit(report)
    (folder / REPORT).write_text(json.dumps(report))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_crash_is_reproduced_and_not_kept_again(root: Path, start_method: str) -> None:
    folder = keep_call(root, crash, of=options(start_method=start_method))
    ended = compilepool("replay", folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *_, last = ended.stdout.splitlines()
    assert first.startswith("replaying job 'softmax', which ended with SIGSEGV on 2")
    assert "the worker that ran job 'softmax' crashed with SIGSEGV" in ended.stdout
    # As much as the attributes of the error have, not as much as fits a screen.
    assert "Python traceback:\n\nFatal Python error: Segmentation fault" in ended.stdout
    assert "in crash" in ended.stdout
    assert last == "reproduced: it ended with SIGSEGV again"
    assert list(root.iterdir()) == [folder]


def say_and_exit() -> None:
    print("LLVM ERROR: no such tile", flush=True)
    os._exit(7)


def test_what_a_pool_has_kept_can_be_replayed(root: Path) -> None:
    with CompilePool(1, initializer=initialize, initargs=("x",)) as pool:
        error = pool.options(name="softmax").submit(say_and_exit).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    ended = compilepool("replay", error.folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, said, *_, last = ended.stdout.splitlines()
    assert first.startswith("replaying job 'softmax', which ended with exit code 7 on ")
    assert said == "LLVM ERROR: no such tile"
    assert last == "reproduced: it ended with exit code 7 again"
    assert [str(folder) for folder in root.iterdir()] == [error.folder]
    (row,) = json.loads(compilepool("crashes", "--json").stdout)
    assert (row["folder"], row["job"], row["exitcode"]) == (error.folder, "softmax", 7)


def test_a_folder_can_be_named_as_it_is_listed(root: Path) -> None:
    folder = keep_call(root, os._exit, 7, report={"signal": None, "exitcode": 7})
    ended = compilepool("replay", folder.name)
    assert ended.stdout.splitlines()[-1] == "reproduced: it ended with exit code 7 again"
    assert ended.returncode == 0


class Poison:
    """Its result ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (77,)


@pytest.mark.parametrize(
    ("function", "arguments", "how"),
    [
        (abs, (-1,), "it returned"),
        (Poison, (), "it returned"),
        (reject, (), "it raised ValueError"),
        (os.abort, (), "it ended with SIGABRT, and not with SIGSEGV"),
        (os._exit, (3,), "it ended with exit code 3, and not with SIGSEGV"),
    ],
)
def test_what_is_not_reproduced_says_how_it_ended(
    root: Path, function: Callable[..., object], arguments: tuple[object, ...], how: str
) -> None:
    ended = compilepool("replay", keep_call(root, function, *arguments))
    assert ended.stdout.splitlines()[-1] == f"not reproduced: {how}"
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ("in reject\n" in ended.stdout) == (function is reject)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_the_job_finds_all_as_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    (tmp_path / "preloaded.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["train.py", "--fast"])
    monkeypatch.chdir(tmp_path)
    pool = options(
        start_method=start_method,
        preload=["preloaded"],
        initializer=initialize,
        initargs=("x",),
    )
    env = {**os.environ, "OF_THE_JOB": "\udcff"}
    expected = (env, sys.argv, sys.path, str(tmp_path), ["preloaded"], "x")
    report = {"signal": None, "exitcode": 9}
    folder = keep_call(root, exit_if_state_is, expected, of=pool, env=env, report=report)
    monkeypatch.undo()
    ended = compilepool("replay", folder)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout


@pytest.mark.parametrize(
    ("function", "last"),
    [
        (crash, "reproduced: it ended with SIGSEGV again"),
        (abs, "not reproduced: it returned"),
    ],
)
def test_the_jobs_own_serializer_is_used(
    root: Path, function: Callable[..., object], last: str
) -> None:
    folder = keep_call(root, function, -1, of=options(serializer=Reverser()))
    assert compilepool("replay", folder).stdout.splitlines()[-1] == last


def test_a_link_to_the_same_interpreter_is_no_other_one(root: Path, tmp_path: Path) -> None:
    folder = keep_call(root, crash)
    link = tmp_path / "python-of-another-environment"
    link.symlink_to(os.path.realpath(sys.executable))
    edit_report(folder, lambda report: report["versions"].update(executable=str(link)))
    assert "differs now" not in compilepool("replay", folder).stdout


def test_versions_that_differ_are_told(root: Path) -> None:
    folder = keep_call(root, crash)
    edit_report(folder, lambda report: report["versions"].update(cloudpickle="0.1", numba="0.2"))
    ended = compilepool("replay", folder)
    now = versions(sys.path)
    differing = [line for line in ended.stdout.splitlines() if line.startswith("differs now:")]
    assert set(differing) == {
        f"differs now: cloudpickle {now['cloudpickle']}, was 0.1",
        f"differs now: numba {now.get('numba', 'is gone')}, was 0.2",
    }


def other_python(report: dict[str, Any]) -> None:
    report["versions"] |= {"implementation": "cpython 2.7", "executable": "/usr/bin/python2"}


@pytest.mark.parametrize("flags", [[], ["--gdb"]])
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda folder: (folder / CALL).chmod(0o666), f"{CALL} can be written to by others"),
        (lambda folder: (folder / REPORT).unlink(), "is no crash folder"),
        (shutil.rmtree, "No such file"),
        (lambda folder: (folder / ENVIRON).write_text("{"), f"{ENVIRON} holds no JSON object"),
        (
            lambda folder: edit_report(folder, other_python),
            "it needs cpython 2.7, and was kept by /usr/bin/python2",
        ),
        (
            lambda folder: edit_report(folder, lambda report: report.pop("versions")),
            "it does not say which Python it needs",
        ),
    ],
)
def test_what_cannot_be_replayed_is_not_run(
    root: Path, tmp_path: Path, harm: Callable[[Path], object], why: str, flags: list[str]
) -> None:
    ran = tmp_path / "ran"
    folder = keep_call(root, ran.touch)
    harm(folder)
    ended = compilepool("replay", *flags, folder)
    assert ended.returncode == 2
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not ran.exists()


def test_a_call_that_was_left_out_cannot_be_replayed(root: Path) -> None:
    fd = os.memfd_create("huge")
    try:
        os.truncate(fd, 1 << 30)
        folder = keep(crashed_job("job", Payload(Form.MEMFD, b"", fd)))
    finally:
        os.close(fd)
    ended = compilepool("replay", folder)
    assert (ended.returncode, ended.stderr.count("left out, it has 1073741824 bytes")) == (2, 1)


def test_ctrl_c_ends_it_with_one_line_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    folder = keep_call(root, hold, fifo)
    with subprocess.Popen(
        [sys.executable, "-m", "compilepool.cli.main", "replay", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert fifo.read_text() == "started"
        assert pool_processes("worker", process.pid)
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (130, "interrupted\n")
    assert stdout.count("\n") == 1


def hold(fifo: Path) -> None:
    fifo.write_text("started")
    signal.pause()


STAND_IN = """#!/bin/sh
while [ "$1" != --args ]; do shift; done
shift
exec "$@"
"""
"""Runs what it is to debug."""


@pytest.mark.parametrize(
    ("is_gone", "flags", "returncode"),
    [
        (False, [], 0),
        (False, ["--gdb"], -signal.SIGSEGV),
        (True, [], 2),  # the preload is gone as well
        (True, ["--gdb"], 1),
    ],
)
def test_nothing_is_run_from_where_the_user_is(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_gone: bool,
    flags: list[str],
    returncode: int,
) -> None:
    place, trap, tools = (tmp_path / name for name in ("place", "trap", "tools"))
    for folder in (place, trap, tools):
        folder.mkdir()
    ran = trap / "ran"
    for module in ("preloaded", "sitecustomize"):
        (place / f"{module}.py").touch()
        (trap / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')")
    (tools / "gdb").write_text(STAND_IN)
    (tools / "gdb").chmod(0o755)
    monkeypatch.syspath_prepend(str(place))
    env = {**os.environ, "PYTHONPATH": "."}
    kept = keep_call(root, crash, of=options(preload=["preloaded"]), env=env)
    config = json.loads((kept / CONFIG).read_text())
    config["sys_path"][:0] = ["", "."]
    (kept / CONFIG).write_text(json.dumps({**config, "cwd": str(place)}))
    if is_gone:
        shutil.rmtree(place)
    ended = compilepool("replay", *flags, kept, path=str(tools), cwd=trap)
    assert ended.returncode == returncode, ended.stdout + ended.stderr
    assert not ran.exists()
    gone = f"differs now: working directory /, was {place} (No such file or directory)\n"
    assert (gone in ended.stdout) == is_gone


def test_what_the_job_says_does_nothing_to_the_terminal(root: Path) -> None:
    ended = compilepool("replay", keep_call(root, retitle))
    assert "ValueError: �]0;title�\n" in ended.stdout
    assert "\x1b" not in ended.stdout


def retitle() -> None:
    raise ValueError("\x1b]0;title\a")


@pytest.mark.parametrize(
    ("was_for_memory", "why"),
    [(True, "because"), (False, "maybe because"), (None, "maybe because")],
)
def test_a_replay_of_what_was_killed_warns_of_memory(
    root: Path, was_for_memory: bool | None, why: str
) -> None:
    report = {"signal": int(signal.SIGKILL), "exitcode": None, "is_out_of_memory": was_for_memory}
    _, careful, *_ = compilepool(
        "replay", keep_call(root, abs, -1, report=report)
    ).stdout.splitlines()
    assert careful.startswith(
        f"careful: it was killed, {why} memory ran out; a replay has no limit"
    )
