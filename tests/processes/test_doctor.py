"""`compilepool doctor`, on machines that really forbid or lack something."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import compilepool
from compilepool.cli.doctor.checks import Finding, examine
from compilepool.cli.doctor.report import can_run, findings_as_json, show_findings
from compilepool.linux.cgroups import cgroup_directories
from tests.proc import is_alive

NOBODY = "65534"

REFUSE_A_SYSTEM_CALL = """
import ctypes, resource, struct
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
instructions = [
    (0x20, 0, 0, 0),  # load the number of the system call
    (0x15, 0, 1, {number}),
    (0x06, 0, 0, {action}),
    (0x06, 0, 0, 0x7FFF0000),  # allow
]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
description = struct.pack("HP", len(instructions), ctypes.addressof(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, description) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""
EPERM_FOR_IT = 0x50001
KILL_FOR_IT = 0x80000000
NUMBERS = {"ptrace": 101, "unshare": 272, "memfd_create": 319, "pidfd_open": 434}

on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="knows x86-64's numbers only")
by_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is not bound by the limit itself")


def doctor(
    *arguments: str, after: str = "", by: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that has run the Python code `after`, started `by` a program."""
    code = f"""{after}
import os, sys
os.execv(sys.executable, [sys.executable, "-m", "compilepool.cli.main", "doctor", *sys.argv[1:]])
"""
    return subprocess.run(
        [*by, sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def diagnosis(
    after: str = "", *, by: tuple[str, ...] = (), **environment: str
) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    """The exit code, what was reported, and the findings of that by their names."""
    ended = doctor("--json", after=after, by=by, **environment)
    assert ended.stderr == ""
    report = json.loads(ended.stdout)
    return ended.returncode, report, {each["what"]: each for each in report["findings"]}


def refuse(system_call: str, action: int = EPERM_FOR_IT) -> str:
    return REFUSE_A_SYSTEM_CALL.format(number=NUMBERS[system_call], action=action)


def test_the_json_says_what_the_table_says() -> None:
    exitcode, report, found = diagnosis()
    assert (exitcode, report["can_run"]) == (0, True)
    assert report["compilepool"] == compilepool.__version__
    assert all(bool(each["cost"]) == (each["state"] != "ok") for each in found.values())
    table = doctor(COLUMNS="1000")
    assert (table.returncode, table.stderr) == (0, "")
    _, *rows, summary = table.stdout.splitlines()
    assert summary == report["summary"]
    assert summary.startswith("everything that a pool needs is there")
    assert len(rows) == len(found)
    for row, each in zip(rows, found.values(), strict=True):
        # A detail may differ: a program that is asked for its version may be slow, once.
        assert row.startswith(f"{each['what']} ")
        assert f" {each['state']} " in row
        assert each["cost"] in row


def test_what_is_found_is_true() -> None:
    _, _, found = diagnosis()
    release, python = os.uname().release, sys.version.split()[0]
    assert found["platform"]["detail"] == f"Linux {release}, Python {python}"
    for package in ("torch", "triton", "numba"):
        try:
            expected = ("ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            expected = ("missing", "not installed")
        assert (found[package]["state"], found[package]["detail"]) == expected
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert found["open files"]["detail"].startswith(str(hard))
    assert (found["GPU"]["state"] == "ok") == any(Path("/dev").glob("nvidia*"))


def test_no_group_is_left_behind() -> None:
    diagnosis()
    for controller in ("memory", ""):
        for directory in cgroup_directories(controller):
            for group in Path(directory).glob("compilepool-doctor-*"):
                # Of another test that runs meanwhile, unless its doctor is dead.
                assert is_alive(int(group.name.rpartition("-")[2])) or not group.exists()


def test_each_thing_has_a_cost_and_a_row() -> None:
    missing = [finding._replace(state="missing") for finding in examine()]
    report = json.loads(findings_as_json(missing))
    assert not can_run(missing)
    assert all(each["cost"] for each in report["findings"])
    console = Console(file=io.StringIO(), width=1000, markup=False)
    show_findings(console, missing)
    assert isinstance(console.file, io.StringIO)
    _, *rows, summary = console.file.getvalue().splitlines()
    assert summary == report["summary"]
    for row, each in zip(rows, report["findings"], strict=True):
        columns = [each["what"], each["state"], each["detail"], each["cost"]]
        assert " ".join(row.split()) == " ".join(" ".join(columns).split())


def test_the_summary_counts() -> None:
    findings = [
        Finding("platform", "ok", "", True),
        Finding("gdb", "missing", "", False),
        Finding("GPU", "missing", "", False),
        Finding("open files", "limited", "", False),
    ]
    assert json.loads(findings_as_json(findings))["summary"] == (
        "everything that a pool needs is there; 2 things are missing, 1 thing is limited"
    )
    assert json.loads(findings_as_json(findings[:1]))["summary"] == (
        "everything that a pool needs is there"
    )


@on_x86_64
def test_a_sandbox_without_ptrace() -> None:
    exitcode, _, found = diagnosis(refuse("ptrace"))
    assert exitcode == 0
    assert found["ptrace"]["state"] == "missing"
    assert found["ptrace"]["detail"].startswith("Operation not permitted; ")
    assert found["ptrace"]["detail"].endswith(", a seccomp filter")
    cost = "running threads have no native stacks"
    assert cost in found["ptrace"]["cost"]
    (row,) = (
        line
        for line in doctor(after=refuse("ptrace"), COLUMNS="1000").stdout.splitlines()
        if line.startswith("ptrace ")
    )
    assert cost in row
    assert found["process memory"]["state"] == "ok"


@on_x86_64
def test_a_sandbox_that_kills_who_tries() -> None:
    exitcode, _, found = diagnosis(refuse("ptrace", KILL_FOR_IT))
    assert exitcode == 0
    assert found["ptrace"]["state"] == "missing"
    assert found["ptrace"]["detail"].startswith(
        "the process that tries it is killed: Bad system call"
    )


@on_x86_64
def test_a_sandbox_without_namespaces() -> None:
    exitcode, _, found = diagnosis(refuse("unshare"))
    assert exitcode == 0
    assert found["PID namespace"]["state"] == "missing"
    assert "leaves what jobs have started" in found["PID namespace"]["cost"]


@on_x86_64
@pytest.mark.parametrize("action", [EPERM_FOR_IT, KILL_FOR_IT])
@pytest.mark.parametrize(("what", "call"), [("memfds", "memfd_create"), ("pidfds", "pidfd_open")])
def test_what_no_pool_can_do_without(what: str, call: str, action: int) -> None:
    exitcode, report, found = diagnosis(refuse(call, action))
    assert (exitcode, report["can_run"]) == (1, False)
    assert found[what]["state"] == "missing"
    assert found[what]["cost"] == "no pool can run here"
    assert f"{what}: {found[what]['detail']}" in report["summary"]
    table = doctor(after=refuse(call, action))
    assert table.returncode == 1
    assert table.stdout.splitlines()[-1] == report["summary"]


@on_x86_64
def test_another_architecture() -> None:
    linux32 = "import ctypes; ctypes.CDLL(None).personality(8)"  # uname(2) tells another machine
    _, _, found = diagnosis(linux32)
    assert found["architecture"]["state"] == "missing"
    assert "x86-64 only" in found["architecture"]["cost"]


def test_few_open_files_fail_no_other_check() -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    exitcode, _, found = diagnosis(few)
    assert exitcode == 0
    assert found["open files"]["state"] == "limited"
    assert found["open files"]["detail"].startswith("64; ")
    _, _, usual = diagnosis()
    differ = {what for what, each in found.items() if each["state"] != usual[what]["state"]}
    assert differ <= {"open files"}


def test_too_few_open_files_for_any_pool() -> None:
    too_few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))"
    exitcode, report, found = diagnosis(too_few)
    assert exitcode == 1
    assert found["open files"]["state"] == "missing"
    assert found["open files"]["cost"] == "no pool can run here"
    assert report["summary"].startswith("no pool can run here: open files: 16; ")


@by_root
def test_few_processes() -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))"
    exitcode, _, found = diagnosis(few)
    assert exitcode == 0
    assert found["processes"]["state"] == "limited"
    assert found["processes"]["detail"].startswith("9; ")


def test_core_files() -> None:
    none = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    _, _, found = diagnosis(none)
    core = found["core files"]
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        assert core["state"] == "ok"
    else:
        assert core["state"] == "limited"
        assert "native_tracebacks=False" in core["cost"]


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="the hard limit is 0")
def test_core_files_that_are_allowed() -> None:
    all_ = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (r.getrlimit(r.RLIMIT_CORE)[1],) * 2)"
    _, _, found = diagnosis(all_)
    assert found["core files"]["state"] == "ok"
    assert "written with native_tracebacks=False only" in found["core files"]["detail"]


@by_root
def test_another_user() -> None:
    # The interpreter may be where only root can look, and this lets others look there.
    capability = "dac_read_search"
    by = (
        *("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"),
        *("--inh-caps", f"+{capability}", "--ambient-caps", f"+{capability}"),
    )
    try:
        can = subprocess.run([*by, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("no setpriv, or no capability that it could hand on")
    exitcode, _, found = diagnosis(by=by)
    assert exitcode == 0
    assert found["memory cgroup"]["state"] == "missing"
    assert found["PID namespace"]["detail"] != "can be made"  # in a user namespace at best


def test_no_tools(tmp_path: Path) -> None:
    exitcode, _, found = diagnosis(PATH=str(tmp_path))
    assert exitcode == 0
    for what, name in (
        *(("gdb", "gdb"), ("nvcc", "nvcc")),
        *(("C++ compiler", "g++"), ("C compiler", "gcc or clang")),
    ):
        assert found[what]["state"] == "missing"
        assert found[what]["detail"] == f"no {name} on PATH"
    assert "replay --gdb" in found["gdb"]["cost"]


def test_tools_that_hang_fail_or_are_no_programs(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    scripts = {
        # What it starts is killed with it: the fixture around every test looks.
        "g++": f"#!/bin/sh\n{sleep} 1000 & wait\n",
        "gdb": "#!/bin/sh\nexit 3\n",
        "nvcc": "#!/there/is/none\n",
        "gcc": "#!/bin/sh\nprintf 'gcc \\033[31m99\\n'\n",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    exitcode, _, found = diagnosis(PATH=str(tmp_path))
    assert exitcode == 0
    assert found["C++ compiler"]["detail"] == f"{tmp_path}/g++, tells no version within 0.7 s"
    assert found["C compiler"]["detail"] == f"{tmp_path}/gcc, gcc �[31m99"
    assert (found["gdb"]["state"], found["nvcc"]["state"]) == ("limited", "missing")
    assert found["gdb"]["detail"] == f"{tmp_path}/gdb --version: exit code 3"


def test_a_libdw_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "pystack").mkdir()
    (tmp_path / "pystack" / "__init__.py").touch()
    (tmp_path / "pystack.libs").mkdir()
    (tmp_path / "pystack.libs" / "libdw-0.so").write_text("no library")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    exitcode, _, found = diagnosis(PYTHONPATH=path)
    assert exitcode == 0
    assert found["libdw"]["state"] == "missing"
    assert str(tmp_path) in found["libdw"]["detail"]
    assert "innermost function" in found["libdw"]["cost"]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_another_platform(arguments: list[str]) -> None:
    code = f"""
import os, signal, sys, sysconfig, typer
sysconfig.get_config_vars()  # the interpreter's own cannot be had any more afterwards
for module, name in ((os, "pidfd_open"), (os, "memfd_create"), (os, "sched_getaffinity"),
                     (signal, "pidfd_send_signal")):
    delattr(module, name)
sys.modules["fcntl"] = sys.modules["resource"] = None  # not even these
sys.platform = "darwin"
from compilepool.cli.main import app
app(["doctor", *{arguments}])
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "no pool can run here: platform: needs Linux, this is darwin" in ended.stdout


def test_no_compiler_is_imported() -> None:
    code = """
import sys
from compilepool.cli.doctor.report import run_doctor
run_doctor(as_json=True)
print([name for name in ("torch", "triton", "numba") if name in sys.modules], file=sys.stderr)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stderr == "[]\n"
