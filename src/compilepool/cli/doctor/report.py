"""The report of `compilepool doctor`: the findings, and what each missing thing costs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

import compilepool
from compilepool.cli.doctor.checks import Finding, examine
from compilepool.cli.doctor.probes import State

_NO_PACKAGE = "jobs cannot import it; the pool itself does not need it"

_COSTS = {
    "ptrace": (
        "in crash reports and pool.dump(), running threads have no native stacks, except the one"
        " that crashed; the stacks of waiting threads may be incomplete"
    ),
    "process memory": "crash reports have no native stacks at all, only Python's",
    "architecture": "no native stacks: they are read on x86-64 only",
    "libdw": (
        "native stacks end at each thread's innermost function, and it has no name;"
        " pip install pystack, or install elfutils"
    ),
    "libstdc++": "C++ names in native stacks are mangled",
    "gdb": "`compilepool replay --gdb` does not work",
    "PID namespace": (
        "nothing yet: the pool uses none, so SIGKILL of supervisor and fork server in the same"
        " instant leaves what jobs have started"
    ),
    "memory cgroup": "nothing yet: the pool uses none",
    "OOM-kill counter": (
        "a kill by the kernel's out-of-memory killer cannot be told for sure from another SIGKILL"
    ),
    "core files": "a crashed worker leaves no core file, not even with native_tracebacks=False",
    "open files": "with many workers, jobs may fail because descriptors run out",
    "processes": "with many workers, some of them or of their compilers may fail to start",
    "CPUs": "compilations take longer",
    "torch": _NO_PACKAGE,
    "triton": _NO_PACKAGE,
    "numba": _NO_PACKAGE,
    "C++ compiler": "TorchInductor cannot compile for the CPU",
    "C compiler": "Triton cannot build its kernel launchers, unless $CC names a compiler",
    "ptxas": "Triton cannot compile for NVIDIA GPUs",
    "nvcc": "jobs that compile CUDA C++ fail; Triton does not need it",
    "GPU": "compiled kernels cannot be run here; compiling for a named GPU works",
}

_WIDTH_OF_FILES = 120

_STYLES: dict[State, str] = {"ok": "green", "limited": "yellow", "missing": "yellow"}


def run_doctor(*, as_json: bool) -> bool:
    """Examine this machine, and print the findings.

    Args:
        as_json: whether to print JSON, for programs and bug reports, instead of a table.

    Returns:
        Whether a pool can run here.
    """
    findings = examine()
    if as_json:
        print(findings_as_json(findings))
    else:
        show_findings(_make_console(), findings)
    return can_run(findings)


def can_run(findings: Sequence[Finding]) -> bool:
    """Whether a pool can run on a machine with these findings."""
    return not _obstacles(findings)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a table with a row for each finding, and a line that sums them up."""
    table = Table("what", "state", box=None, pad_edge=False)
    table.add_column("detail", overflow="fold")  # not cut: users copy paths
    table.add_column("what it costs")
    for finding in findings:
        style = "bold red" if _is_obstacle(finding) else _STYLES[finding.state]
        state = Text(finding.state, style=style)
        table.add_row(finding.what, state, finding.detail, _cost(finding))
    console.print(table)
    console.print(_summary(findings), soft_wrap=True)


def findings_as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as JSON, for programs and bug reports."""
    report = {
        "compilepool": compilepool.__version__,
        "can_run": can_run(findings),
        "summary": _summary(findings),
        "findings": [
            {
                "what": finding.what,
                "state": finding.state,
                "detail": finding.detail,
                "cost": _cost(finding),
                "is_needed": finding.is_needed,
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=2)


def _make_console() -> Console:
    # Not the demo's console: it imports the whole pool, which may fail on this machine.
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH_OF_FILES)
    return console


def _cost(finding: Finding) -> str:
    if finding.state == "ok":
        return ""
    return "no pool can run here" if _is_obstacle(finding) else _COSTS[finding.what]


def _obstacles(findings: Sequence[Finding]) -> list[Finding]:
    return [each for each in findings if _is_obstacle(each)]


def _is_obstacle(finding: Finding) -> bool:
    return finding.is_needed and finding.state == "missing"


def _summary(findings: Sequence[Finding]) -> str:
    if obstacles := _obstacles(findings):
        why = "; ".join(f"{each.what}: {each.detail}" for each in obstacles)
        return f"no pool can run here: {why}"
    counts = [_count(findings, "missing"), _count(findings, "limited")]
    lacks = ", ".join(count for count in counts if count)
    return "everything that a pool needs is there" + (f"; {lacks}" if lacks else "")


def _count(findings: Sequence[Finding], state: State) -> str:
    count = sum(finding.state == state for finding in findings)
    if count == 0:
        return ""
    return f"1 thing is {state}" if count == 1 else f"{count} things are {state}"
