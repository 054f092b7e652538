"""What `compilepool doctor` shows: the findings, and in plain words what each thing costs."""

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
        "in crash reports and pool.dump(), threads that run have no native stacks, but for the"
        " one that crashed; of those that wait, they may be incomplete"
    ),
    "process memory": "crash reports have no native stacks at all, only Python's",
    "architecture": "no native stacks: they are read on x86-64 only",
    "libdw": (
        "native stacks end at each thread's innermost function, and it has no name;"
        " pip install pystack, or install elfutils"
    ),
    "libstdc++": "native stacks have C++ names as the linker has them (mangled)",
    "gdb": "`compilepool replay --gdb` does not work",
    "PID namespace": (
        "SIGKILL of supervisor and fork server in the same instant leaves what jobs have started;"
        " nothing else, as the pool does not use them yet"
    ),
    "memory cgroup": "nothing yet: the pool makes none",
    "OOM-kill counter": (
        "a kill by the kernel's out-of-memory killer cannot be told for sure from another SIGKILL"
    ),
    "core files": "a crashed worker leaves no core file, not even with native_tracebacks=False",
    "open files": "with many workers, jobs may fail for want of descriptors",
    "processes": "with many workers, these or the compilers that they start may fail to start",
    "CPUs": "compilations take longer",
    "torch": _NO_PACKAGE,
    "triton": _NO_PACKAGE,
    "numba": _NO_PACKAGE,
    "C++ compiler": "TorchInductor cannot compile for the CPU",
    "C compiler": "Triton cannot build what launches its kernels, unless $CC names a compiler",
    "ptxas": "Triton cannot compile for NVIDIA GPUs",
    "nvcc": "jobs that compile CUDA C++ fail; Triton does not need it",
    "GPU": "compiled kernels cannot be run here; compiling for a named GPU works",
}

_WIDTH_OF_FILES = 120

_STYLES: dict[State, str] = {"ok": "green", "limited": "yellow", "missing": "yellow"}


def run_doctor(*, as_json: bool) -> bool:
    """Examine this machine, and show what was found.

    Args:
        as_json: as JSON, for programs and bug reports, instead of a table.

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
    """Whether a pool can run with what was found."""
    return not _obstacles(findings)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """A table with a row for each, and one line that sums them up."""
    table = Table("what", "state", box=None, pad_edge=False)
    table.add_column("detail", overflow="fold")  # paths are to be copied
    table.add_column("what it costs")
    for finding in findings:
        style = "bold red" if _is_obstacle(finding) else _STYLES[finding.state]
        state = Text(finding.state, style=style)
        table.add_row(finding.what, state, finding.detail, _cost(finding))
    console.print(table)
    console.print(_summary(findings), soft_wrap=True)


def findings_as_json(findings: Sequence[Finding]) -> str:
    """The same for programs, and for bug reports."""
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
    # The demo's is much the same, but would bring the whole pool, which may not even be importable.
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
