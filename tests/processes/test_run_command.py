"""`compilepool run` becomes the program; `autoload` is what torch calls there. Without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer

import compilepool
from compilepool import CompilePool
from compilepool.client.connection.sharing import LINGER, SHARED
from compilepool.integrations.torch.autoload import autoload
from compilepool.integrations.torch.settings import ENABLE, OPTIONS, PROGRAM_PID
from tests.proc import PATIENCE_S

SWITCH = "TORCH_DEVICE_BACKEND_AUTOLOAD"

RUN = [sys.executable, "-m", "compilepool.cli.main", "run"]

SHOW = """
import json, os, sys
print(json.dumps({
    "pid": os.getpid(),
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "open": [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")],
}))
"""

AUTOLOAD = """
import json, sys, warnings
sys.modules["torch"] = None
from compilepool.integrations.torch.autoload import autoload
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    autoload()
print(json.dumps([
    [[each.category.__name__, str(each.message)] for each in caught],
    [name for name in sys.modules if name.startswith("compilepool.client")],
]))
"""


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is what these tests set, nor what Python sets for itself where there is no locale."""
    for name in (ENABLE, OPTIONS, PROGRAM_PID, SWITCH, SHARED, LINGER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def start(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command, with variables that it has."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=PATIENCE_S,
    )


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`compilepool run`, with these arguments."""
    return start(*RUN, *arguments, **environment)


def shown(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `SHOW` tells of itself."""
    assert (ended.returncode, ended.stderr) == (0, "")
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen


def options_in(seen: dict[str, Any]) -> dict[str, Any]:
    """The options that the program would give to the pool."""
    options: dict[str, Any] = json.loads(seen["environment"][OPTIONS])
    return options


def autoloaded(before: str = "", **environment: str) -> tuple[list[list[str]], list[str]]:
    """The warnings of a program that loads us, and what it has imported of the client.

    Args:
        before: code that it runs before.
        environment: variables that it has.
    """
    ended = start(sys.executable, "-c", before + AUTOLOAD, **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    caught, loaded = json.loads(ended.stdout)
    return caught, loaded


def warning(reason: str) -> list[str]:
    """The only warning there may be."""
    text = f"compilepool is not used: {reason}. Inductor goes on with its own pool"
    return ["RuntimeWarning", text]


# compilepool run


def test_the_program_takes_the_place_of_the_command() -> None:
    with subprocess.Popen(
        [*RUN, sys.executable, "-c", SHOW], stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(output)["pid"] == process.pid


@pytest.mark.parametrize("before", [[], ["--"], ["--workers", "2", "--"]])
def test_the_program_gets_its_arguments_as_they_are(before: list[str]) -> None:
    options = ["--workers", "3", "-j", "--help", "--version", "--"]
    arguments = [*options, "-", "", "a b", "*", "$HOME", "@file", "ü\n", os.fsdecode(b"\xff")]
    seen = shown(run(*before, sys.executable, "-c", SHOW, *arguments))
    assert seen["arguments"] == arguments


def test_the_program_is_looked_up_in_path(tmp_path: Path) -> None:
    program = tmp_path / "train"
    program.write_text("#!/bin/sh\necho found: $1\n")
    program.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    assert run("train", "x", PATH=path).stdout == "found: x\n"


@pytest.mark.parametrize("exitcode", [0, 7])
def test_its_exit_code_is_the_programs(exitcode: int) -> None:
    ended = run("--", "sh", "-c", f"echo out; echo err >&2; exit {exitcode}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (exitcode, "out\n", "err\n")


def test_a_signal_that_kills_the_program_is_seen() -> None:
    assert run("--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_the_program_has_the_same_environment_but_for_our_variables() -> None:
    seen = shown(run(sys.executable, "-c", SHOW))
    directly = shown(start(sys.executable, "-c", SHOW))
    # The default is told, too: it is the same.
    options = json.dumps({"on_crash": "raise"})
    added = {ENABLE: "1", OPTIONS: options, PROGRAM_PID: str(seen["pid"])}
    assert seen["environment"] == {**directly["environment"], **added}
    assert seen["open"] == directly["open"]


def test_signals_are_as_if_the_program_were_started_directly() -> None:
    def signals(ended: subprocess.CompletedProcess[str]) -> list[str]:
        return [line for line in ended.stdout.splitlines() if line.startswith(("SigIgn", "SigBlk"))]

    command = ["cat", "/proc/self/status"]
    directly = signals(start(*command))
    assert len(directly) == 2
    # Else `yes | head` in a shell script says "Broken pipe": Python ignores SIGPIPE.
    assert signals(run(*command)) == directly


def test_the_options_are_told_to_the_program_with_the_traces_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (
        *("--workers", "3", "--timeout", "2.5", "--memory-limit", "1GiB"),
        *("--on-crash", "in_process", "--progress", "--trace", "trace.json"),
    )
    seen = shown(run(*options, sys.executable, "-c", SHOW))
    assert options_in(seen) == {
        "max_workers": 3,
        "timeout": 2.5,
        "memory_limit": "1GiB",
        "on_crash": "in_process",
        "progress": True,
        "trace": str(tmp_path / "trace.json"),
    }
    assert not list(tmp_path.iterdir())  # it is the program's to begin


def test_sharing_is_told_to_every_pool_of_the_program() -> None:
    seen = shown(run("--shared", "--linger", "0.5", sys.executable, "-c", SHOW))
    assert (seen["environment"][SHARED], seen["environment"][LINGER]) == ("1", "0.5")
    assert options_in(seen) == {"on_crash": "raise"}


@pytest.mark.parametrize("value", ["0", "1"])
def test_without_the_option_the_environment_says_whether_pools_are_shared(value: str) -> None:
    environment = {SHARED: value, LINGER: "7"}
    seen = shown(run(sys.executable, "-c", SHOW, **environment))["environment"]
    assert {name: seen[name] for name in environment} == environment
    overridden = shown(run("--shared", "--linger", "0", sys.executable, "-c", SHOW, **environment))
    assert [overridden["environment"][name] for name in environment] == ["1", "0"]


def test_options_that_were_there_before_do_not_count() -> None:
    environment = {ENABLE: "0", OPTIONS: '{"max_workers": 7}', SWITCH: "1"}
    seen = shown(run("--timeout", "9", sys.executable, "-c", SHOW, **environment))
    assert seen["environment"][ENABLE] == "1"
    assert options_in(seen) == {"timeout": 9.0, "on_crash": "raise"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--timeout", "-1"], "timeout must be a number of seconds greater than 0"),
        (["--linger", "-1"], "linger must be 0 or more seconds, not -1.0"),
        (["--shared", "--linger", "nan"], "linger must be 0 or more seconds, not nan"),
        (["--memory-limit", "lots"], "memory_limit must be a number of bytes, or text such as"),
    ],
)
def test_an_option_that_no_pool_takes_is_told_in_a_line_and_nothing_runs(
    options: list[str], message: str
) -> None:
    ended = run(*options, "echo", "it runs")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(message)
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0", "echo", "it runs"], "'--workers'"),
        (["--on-crash", "never", "echo", "it runs"], "'--on-crash'"),
        (["--progress", "--"], "PROGRAM"),
    ],
)
def test_what_the_command_line_does_not_allow(arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr


def test_a_program_that_cannot_be_run_is_told_in_a_line(tmp_path: Path) -> None:
    for name, mode in (("text", 0o644), ("nothing", 0o755)):
        (tmp_path / name).touch(mode)
    for program, reason in (
        ("no-such-program", "No such file or directory"),
        (f"{tmp_path}/text", "Permission denied"),
        (f"{tmp_path}/nothing", "Exec format error"),
    ):
        ended = run("--", program, "--help")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"cannot run {program}: {reason}\n"


def test_a_switch_that_keeps_torch_from_finding_us_is_refused() -> None:
    ended = run("echo", "it runs", **{SWITCH: "0"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{SWITCH}=0 keeps torch from finding compilepool; unset it\n"


def test_a_compilepool_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    """It is on the path, and so is all that it needs."""
    site_packages = Path(typer.__file__).parent.parent
    package = Path(compilepool.__file__).parent
    for path in [package, *site_packages.iterdir()]:
        if path == package or not path.name.startswith(("compilepool", "__")):
            (tmp_path / path.name).symlink_to(path)
    code = f"""
import sys
sys.path.append({str(tmp_path)!r})
from compilepool.cli.main import app
app(["run", "echo", "it runs"])
"""
    ended = start(sys.executable, "-I", "-S", "-c", code)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "torch would not find compilepool, which is not installed" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


# autoload


def test_autoload_is_what_torch_finds() -> None:
    assert entry_points(group="torch.backends")["compilepool"].load() is autoload


@pytest.mark.parametrize("environment", [{}, {ENABLE: ""}, {ENABLE: "0"}])
def test_autoload_does_nothing_unless_it_is_asked_to(environment: dict[str, str]) -> None:
    assert autoloaded(**environment, **{OPTIONS: "wrong"}) == ([], [])


def test_autoload_refuses_what_is_neither_yes_nor_no() -> None:
    caught, _ = autoloaded(**{ENABLE: "yes"})
    assert caught == [warning("COMPILEPOOL_TORCH must be 1 or 0, not 'yes'")]


@pytest.mark.parametrize("text", ["[1]", "{", "null", "{'timeout': 3}"])
def test_autoload_refuses_options_that_are_no_json_object(text: str) -> None:
    caught, _ = autoloaded(**{ENABLE: "1", OPTIONS: text})
    assert caught == [warning(f"COMPILEPOOL_TORCH_OPTIONS must be a JSON object, not {text!r}")]


def test_autoload_refuses_a_wrong_option() -> None:
    caught, _ = autoloaded(**{ENABLE: "1", OPTIONS: '{"on_crash": "never"}'})
    assert caught == [warning("on_crash must be 'raise' or 'in_process', not 'never'")]


@pytest.mark.parametrize("options", ["", '{"max_workers": 2}'])
def test_autoload_says_that_there_is_no_torch(options: str) -> None:
    caught, _ = autoloaded(**{ENABLE: "1", OPTIONS: options})
    reason = "compilepool has nothing to compile for: torch is not installed"
    assert caught == [warning(reason)]


def test_a_warning_of_autoload_is_seen_once_on_error_output() -> None:
    code = """
from compilepool.integrations.torch.autoload import autoload
autoload()
print("goes on")
"""
    ended = start(sys.executable, "-c", code, **{ENABLE: "yes"})
    assert (ended.returncode, ended.stdout) == (0, "goes on\n")
    kind, text = warning("COMPILEPOOL_TORCH must be 1 or 0, not 'yes'")
    # The line that is blamed is the caller's: torch's, in a program.
    assert ended.stderr == f"<string>:3: {kind}: {text}\n"


def warnings_of_autoload() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autoload()
    return [str(each.message) for each in caught]


def test_autoload_does_nothing_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENABLE, "yes")
    with CompilePool(1) as pool:
        assert pool.submit(warnings_of_autoload).result(PATIENCE_S) == []
        assert pool.submit(os.environ.get, ENABLE).result(PATIENCE_S) == "yes"
    assert len(warnings_of_autoload()) == 1


def test_autoload_does_nothing_in_a_worker_of_another_pool() -> None:
    become_worker = """
import os
from compilepool import worker_initializer
worker_initializer(os.getppid())
"""
    assert autoloaded(become_worker, **{ENABLE: "yes"}) == ([], [])


def test_autoload_does_nothing_in_a_preload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported by the fork server, which is no worker, but a process of the pool."""
    (tmp_path / "imports_torch.py").write_text(
        "from tests.processes.test_run_command import warnings_of_autoload\n"
        "from compilepool import in_toplevel_process\n"
        "seen = in_toplevel_process(), warnings_of_autoload()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(ENABLE, "yes")
    with CompilePool(1, preload=["imports_torch"]) as pool:
        seen = pool.submit(lambda: sys.modules["imports_torch"].seen).result(PATIENCE_S)
    assert seen == (False, [])
