"""Words for a crash: what the error says, on one screen."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Sequence

from compilepool.wire.failure import CRASH_HEAD, Failure
from compilepool.wire.native_report import (
    UNKNOWN,
    Frame,
    NativeReport,
    is_of_runtime,
    telling_frames,
)
from compilepool.wire.spawn import PACKAGE_ROOT

_WIDTH = 100
_FUNCTION_WIDTH = 70
_NATIVE_FRAMES = 6
_PYTHON_FRAMES = 4
_LOG_LINES = 4
_MISSING_LINES = 3
_OURS = tuple(
    f'  File "{os.path.join(PACKAGE_ROOT, "compilepool", folder)}{os.sep}'
    for folder in ("worker", "forkserver", "wire")
)
_HAS_ADDRESS = (-signal.SIGSEGV, -signal.SIGBUS)


def crash_text(failure: Failure, job: str, log: str, *, folder: str = "", unkept: str = "") -> str:
    """What the error of a job says whose worker died.

    Args:
        failure: what the supervisor has found.
        job: the job's name.
        log: the end of its output.
        folder: its crash folder; empty if there is none.
        unkept: why there is none, if that is worth saying.

    Returns:
        One line that says what happened, then the top of each part of the report.
    """
    report = NativeReport.of_lines(failure.native.encode())
    lines = [
        f"the worker that ran job {job!r} {_what(failure, report)};"
        " only this job is lost, and the pool works on"
    ]
    if failure.phase:
        lines += _part("phase", [f"{failure.phase}, for {failure.phase_s:.3g} s"])
    lines += _part("native", _native(report))
    lines += _part("python", _python(failure.text))
    lines += _part("output", log.rstrip().splitlines()[-_LOG_LINES:])
    lines += _part("missing", report.missing[:_MISSING_LINES])
    if folder:
        lines += _part("replay", [f"compilepool replay {shlex.quote(folder)}"], cut=False)
    elif unkept:
        lines += _part("replay", [f"not possible: {unkept}"])
    return "\n".join(lines)


def died(exitcode: int | None) -> str:
    """What an exit code says of a process's end; negated signal numbers, None if there is none."""
    if exitcode is None:
        return "could not be started"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    return f"was killed by {signal_name(-exitcode)}"


def signal_name(number: int) -> str:
    """A signal as "SIGSEGV (Segmentation fault)"."""
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _what(failure: Failure, report: NativeReport) -> str:
    exitcode = failure.exitcode
    if failure.text and not failure.text.startswith(CRASH_HEAD):  # the supervisor knows why
        return f"{died(exitcode)}: {failure.text.strip()}"
    if exitcode == -signal.SIGKILL:
        memory = f"it had {_gib(failure.peak_bytes)} at its peak" if failure.peak_bytes else ""
        if failure.is_out_of_memory:
            return (
                f"{died(exitcode)}, probably for memory: the kernel's out-of-memory killer struck"
                f" just then, and {memory}; give it more memory, or the pool fewer workers"
            )
        return f"{died(exitcode)} from outside, neither by the pool nor for memory ({memory})"
    if exitcode is None or exitcode >= 0 or not failure.text:
        return died(exitcode)
    return f"crashed of {signal_name(-exitcode)}{_where(exitcode, report)}"


def _where(exitcode: int, report: NativeReport) -> str:
    site = report.crash
    if site is None:
        return ""
    access = ""
    if exitcode in _HAS_ADDRESS and site.address is not None:
        verb = {"read": "reading", "write": "writing", "execute": "executing"}
        access = f", {verb.get(site.access or '', 'accessing')} address {site.address:#x},"
    if report.threads and report.threads[0].is_crashed and report.threads[0].frames:
        return f"{access} in {_frame(_culprit(telling_frames(report.threads[0])))}"
    return f"{access} in {site.library}+{site.offset:#x}" if site.library else access


def _culprit(frames: list[Frame]) -> Frame:
    """The first frame with a name that is not the runtime's, if one of the first ones is such."""
    first = frames[:_NATIVE_FRAMES]
    named = [frame for frame in first if frame.function != UNKNOWN]
    return next((frame for frame in named if not is_of_runtime(frame)), (named or first)[0])


def _native(report: NativeReport) -> list[str]:
    if not report.threads:
        return []
    first, *others = report.threads
    lines = [f"#{number} {_frame(each)}" for number, each in enumerate(telling_frames(first))]
    more = [*_more(len(lines) - _NATIVE_FRAMES, "more frame"), *_more(len(others), "other thread")]
    end = [f"({' and '.join(more)} in .native_traceback)"] if more else []
    if not first.is_crashed:
        return end
    return lines[:_NATIVE_FRAMES] + end


def _python(text: str) -> list[str]:
    """The frames of the thread that crashed, if Python knew it; else of the first one."""
    if not text.startswith(CRASH_HEAD):
        return []
    _, _, rest = text.partition("\n\n")
    head, *frames = rest.partition("\n\n")[0].splitlines() or [""]
    lines = [frame.strip() for frame in frames if not frame.startswith(_OURS)]
    more = _more(len(lines) - _PYTHON_FRAMES, "more frame")
    end = [f"({more[0]} in .python_traceback)"] if more else []
    foreign = [] if head.startswith("Current") else ["(the thread that crashed is not Python's)"]
    return foreign + lines[:_PYTHON_FRAMES] + end


def _frame(frame: Frame) -> str:
    place = f"{frame.library}+{frame.offset:#x}" if frame.library else f"{frame.pc:#x}, not mapped"
    return f"{_cut(frame.function, _FUNCTION_WIDTH)} ({place})"


def _more(count: int, what: str) -> list[str]:
    return [f"{count} {what}{'' if count == 1 else 's'}"] if count > 0 else []


def _part(label: str, lines: Sequence[str], *, cut: bool = True) -> Iterator[str]:
    for line in lines:
        yield f"  {label:<8} {_cut(line, _WIDTH) if cut else line}"
        label = ""


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
