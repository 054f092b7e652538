"""`JobDump`, the result of `CompilePool.dump`."""

from __future__ import annotations

import dataclasses

from compilepool.light_typing import TYPE_CHECKING
from compilepool.text import printable
from compilepool.wire.native_report import ChildProcess, NativeReport, native_traceback

if TYPE_CHECKING:  # it needs Linux, and `import compilepool` works on every platform
    from compilepool.wire.job_snapshot import JobSnapshot

_STATES = {
    "queued": "waits: no worker has begun it",
    "running": "runs",
    "ended": "has ended",
}


@dataclasses.dataclass(frozen=True)
class JobDump:
    """What a job does at one moment. `str()` is the whole of it, safe to print on a terminal.

    Attributes:
        job: the job's name.
        state: "queued", "running" or "ended". All other attributes are empty unless it is
            "running".
        run_s: the time since the job's start, in seconds.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
        phase_s: the time since the start of that phase, in seconds.
        python_traceback: the stacks of all Python threads of the worker.
        native_traceback: the native stacks of all threads of the worker, the main thread first.
        children: the processes that the job started, and their descendants.
        log: the end of the job's output so far.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
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
    """Make a `JobDump` from the supervisor's snapshot of a job.

    Args:
        snapshot: the snapshot.
        job: the job's name.
    """
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
