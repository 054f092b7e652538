"""What `CompilePool.dump` returns."""

from __future__ import annotations

import dataclasses

from compilepool.light_typing import TYPE_CHECKING
from compilepool.text import printable
from compilepool.wire.native_report import ChildProcess, NativeReport, native_traceback

if TYPE_CHECKING:  # they need what other platforms lack, and this module is imported there
    from compilepool.wire.job_snapshot import JobSnapshot

_STATES = {
    "queued": "waits: no worker has begun it",
    "running": "runs",
    "ended": "has ended",
}


@dataclasses.dataclass(frozen=True)
class JobDump:
    """What a job does at one moment. `str()` tells all of it, as a terminal may be shown it.

    Attributes:
        job: the job's name.
        state: "queued", "running" or "ended"; in the first and the last there is nothing more.
        run_s: for how long it has run, in seconds.
        phase: what the job says that it does, by `report_phase`; empty if nothing.
        phase_s: for how long, in seconds.
        python_traceback: of all Python threads of its worker.
        native_traceback: of all threads of its worker, the main one first.
        children: the processes that it has started, and those below them.
        log: the end of its output until now.
        missing: what could not be found out, why, and what would allow it.
    """

    job: str
    state: str
    run_s: float = 0.0
    phase: str = ""
    phase_s: float = 0.0
    python_traceback: str = ""
    native_traceback: str = ""
    children: tuple[ChildProcess, ...] = ()
    log: str = ""
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"job {self.job!r} {_STATES.get(self.state, self.state)}"]
        if self.state == "running":
            phase = f", in phase {self.phase!r} for {self.phase_s:.3g} s" if self.phase else ""
            lines[0] += f", for {self.run_s:.3g} s{phase}"
        lines += _part("Children", "\n".join(map(_child, self.children)))
        lines += _part("Python stacks", self.python_traceback)
        lines += _part("Native stacks", self.native_traceback)
        lines += _part("Output", self.log)
        lines += _part("Missing", "\n".join(self.missing))
        return printable("\n".join(lines), keeps_newlines=True)


def dump_of(snapshot: JobSnapshot, job: str) -> JobDump:
    """What the supervisor has told of a job, as the user gets it."""
    report = NativeReport.of_lines(snapshot.native.encode())
    return JobDump(
        job,
        snapshot.state,
        snapshot.run_s,
        snapshot.phase,
        snapshot.phase_s,
        snapshot.text,
        native_traceback(report),
        tuple(report.children),
        snapshot.log,
        tuple(report.missing),
    )


def _child(child: ChildProcess) -> str:
    return (
        f"{child.pid} (below {child.parent_pid}) {child.command}"
        f" [state {child.state}, {child.age_s:.3g} s old, {child.cpu_s:.3g} s of CPU]"
    )


def _part(title: str, text: str) -> list[str]:
    if not text.strip():
        return []
    return ["", f"{title}:", *(f"  {line}".rstrip() for line in text.rstrip().split("\n"))]
