"""`compilepool crashes` and `compilepool replay`, as users run them."""

from __future__ import annotations

import ctypes
import json
import os
import re
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
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.client.crashes.versions import versions
from compilepool.client.session.sending import pack_call
from compilepool.linux.spawn import process_command
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from tests.crashed_jobs import crashed_job, keep_call, options
from tests.processes import PATIENCE_S, pool_processes

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "crashes"
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", str(folder))
    return folder


def compilepool(
    *arguments: str | Path, stdin: str = "", path: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({} if path is None else {"PATH": path})}
    command = [sys.executable, "-m", "compilepool.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, env=env, capture_output=True, text=True, check=False, cwd=cwd
    )


def crash(*_arguments: object) -> None:
    ctypes.string_at(0)


def reject() -> None:
    raise ValueError("no such tile")


def edit_report(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    report = json.loads((folder / REPORT).read_text())
    edit(report)
    (folder / REPORT).write_text(json.dumps(report))


# compilepool replay


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


def state() -> tuple[object, ...]:
    """What a job sees of its process."""
    return (
        dict(os.environ),
        sys.argv,
        sys.path,
        os.getcwd(),
        [name for name in ("json.tool", "preloaded") if name in sys.modules],
        getattr(sys, "initialized_with", None),
    )


def initialize(value: str) -> None:
    sys.initialized_with = value  # type: ignore[attr-defined]


def exit_if_state_is(expected: tuple[object, ...]) -> None:
    if state() == expected:
        os._exit(9)
    raise AssertionError(f"{state()}, not {expected}")


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


class Reverser:
    """A serializer that pickle and cloudpickle cannot read."""

    def dumps(self, obj: object, /) -> bytes:
        import pickle

        return pickle.dumps(obj)[::-1]

    def loads(self, data: bytes, /) -> Any:
        import pickle

        return pickle.loads(data[::-1])


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


def test_versions_that_differ_are_told(root: Path) -> None:
    folder = keep_call(root, crash)
    edit_report(folder, lambda report: report["versions"].update(cloudpickle="0.1", numba="0.2"))
    ended = compilepool("replay", folder)
    now = versions(sys.path)
    differing = [line for line in ended.stdout.splitlines() if line.startswith("differs now:")]
    assert differing == [
        f"differs now: cloudpickle {now['cloudpickle']}, was 0.1",
        f"differs now: numba {now.get('numba', 'is gone')}, was 0.2",
    ]


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
    # Where tests run in the background of a shell, children are born to ignore SIGINT.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from compilepool.cli.main import app; app()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "replay", str(folder)],
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
    # That no process is left is for the fixture around every test to see.


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


# compilepool replay --gdb


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


def run_alone(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a job in a process of its own, as gdb does it."""
    with KeptCrash.open(folder) as kept:
        payloads = [kept.config().payload(inline_limit=-1), kept.call()]
        startup, env = kept.startup(), kept.env()
    if startup is not None:
        payloads.append(startup)
    fds = [payload.fd for payload in payloads]
    command = [*process_command(["-P"], "compilepool.worker.alone"), *map(str, fds)]
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


# compilepool crashes


def test_without_crashes_the_list_says_so(root: Path) -> None:
    ended = compilepool("crashes")
    assert (ended.returncode, ended.stdout) == (0, f"no crashes in {root}\n")
    ended = compilepool("crashes", "--json")
    assert (ended.returncode, ended.stdout) == (0, "[]\n")


def test_the_newest_is_listed_first(root: Path) -> None:
    facts: dict[str, Any] = {"signal": None, "exitcode": 3}
    traced = {"signal": int(signal.SIGSEGV), "where": "string_at (__init__.py:519)"}
    native = {"signal": 62, "where": "llvm::lower (libtriton.so+0x1\x1b)"}
    folders = [
        keep_call(root, crash, name=name, report=report)
        for name, report in (("first", facts), ("[bold]x\x1b[31m", traced), ("third", native))
    ]
    ended = compilepool("crashes")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[1::2] == [f"    {folder}" for folder in reversed(folders)]
    third, second, first = lines[::2]
    assert re.fullmatch(rf"{TIME}  signal 62  third in llvm::lower \(libt.*\), [\d.]+ kB", third)
    assert re.search(r"  SIGSEGV  \[bold\]x�\[31m in string_at \(__init__.py:519\), ", second)
    assert re.fullmatch(rf"{TIME}  exit code 3  first, [\d.]+ kB", first)
    rows = json.loads(compilepool("crashes", "--json").stdout)
    assert [row["folder"] for row in rows] == [str(folder) for folder in reversed(folders)]
    assert [row["job"] for row in rows] == ["third", "[bold]x\x1b[31m", "first"]
    assert [(row["signal"], row["exitcode"]) for row in rows] == [(62, None), (11, None), (None, 3)]
    for row, folder in zip(reversed(rows), folders, strict=True):
        assert row["bytes"] == sum(path.stat().st_size for path in folder.iterdir())


def test_what_cannot_be_replayed_is_listed_as_such(root: Path) -> None:
    call = pack_call("job", abs, (), {}, None)
    damaged, untrusted = (keep(crashed_job("job", call)) for _ in range(2))
    (damaged / REPORT).write_text("")
    (untrusted / CALL).chmod(0o666)
    rows = {row["folder"]: row for row in json.loads(compilepool("crashes", "--json").stdout)}
    assert "report.json holds no JSON object" in rows[str(damaged)]["error"]
    assert "can be written to by others" in rows[str(untrusted)]["error"]
    listed = compilepool("crashes")
    assert (listed.returncode, listed.stdout.count("cannot be replayed: ")) == (0, 2)
    assert {str(damaged), str(untrusted)} <= {*listed.stdout.split()}
