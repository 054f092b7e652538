"""The labelled parts that the reports of crashes and of limits share."""

from __future__ import annotations

import os
from collections.abc import Sequence

from compilepool.client.reports.layout import PART_COLUMNS, Part, cut, cut_left, labelled, wrap
from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.wire.failure import Failure, LeftBehind
from compilepool.wire.native_report import Frame, NativeReport, ThreadStack, telling_frames
from compilepool.wire.python_stack import PythonFrame, PythonThread, crashed_thread, threads_of

TOP_FRAMES = 6
"""How many native frames a message has room for."""

_COLLECTING = PythonFrame("Garbage-collecting")  # CPython's `Python/traceback.c`
_PYTHON_FRAMES = 4
_CHILDREN = 4
_LOG_LINES = 4
_FUNCTION_COLUMNS = 70
_AFTER_COMMAND = 40  # columns
_NAME_COLUMNS = 80
_PACKAGE = os.path.join(PACKAGE_ROOT, "compilepool", "")
_OURS = tuple(
    _PACKAGE + name
    for name in ("worker/", "forkserver/", "wire/", "linux/", "any_process/", "entry.py")
)


def quoted(name: str) -> str:
    """A name in quotes, cut to what a message has room for."""
    return cut(repr(name), _NAME_COLUMNS)


def count(number: int, what: str) -> list[str]:
    """A number of things in words; nothing if there is none."""
    return [f"{number} {what}{'' if number == 1 else 's'}"] if number > 0 else []


def phase_part(failure: Failure) -> Part:
    """The phase that the job was in."""
    words = f"{failure.phase}, for {failure.phase_s:.3g} s"
    return Part("phase", [words] if failure.phase else [], 1)


def before_lines(failure: Failure) -> list[str]:
    """The lines about what the worker had run before; none if it had run nothing."""
    if failure.jobs_before < 1:
        return []
    last = quoted(failure.last_job)
    number = failure.jobs_before
    jobs = f"one job, {last}" if number == 1 else f"{number} jobs, the last of them {last}"
    lines = [f"the worker had run {jobs}"]
    if failure.left_behind is LeftBehind.THREAD:
        lines.append(
            "the thread that crashed is older than this job: an earlier job may have left it"
        )
    if failure.left_behind is LeftBehind.PROCESS:
        lines.append("a process was there that is older than this job: it may have sent the signal")
    thread = crashed_thread(failure.text)
    if thread is not None and thread.frames[:1] == [_COLLECTING]:
        lines.append("it crashed while it collected garbage, which an earlier job may have left")
    return labelled("before", [cut(line, PART_COLUMNS) for line in lines])


def native_part(report: NativeReport, shown: ThreadStack | None) -> Part:
    """The native frames of one thread, and how many other threads there are.

    Args:
        report: what the inspector has found.
        shown: the thread of the report that is shown; None if none is worth it.
    """
    frames: Sequence[Frame] = ()
    if shown is not None:
        frames = telling_frames(shown) if shown.is_crashed else shown.frames
    others = len(report.threads) - (shown is not None)
    of_threads = count(others, "thread" if shown is None else "other thread")

    def remark(hidden: int) -> str:
        more = " and ".join([*count(hidden, "more frame"), *of_threads])
        return f"({more} in .native_traceback)" if more else ""

    lines = [
        f"#{number} {short_name(each)} ({position(each)})" for number, each in enumerate(frames)
    ]
    return Part("native", lines, TOP_FRAMES, remark=remark)


def python_part(frames: Sequence[PythonFrame], heading: str = "") -> Part:
    """The Python frames of one thread.

    Args:
        frames: the frames, most recent first.
        heading: a line above them; empty if there is none.
    """
    lines = [cut_left(frame.text, PART_COLUMNS) for frame in frames]
    most = _PYTHON_FRAMES
    if heading:
        lines.insert(0, heading)
        most += 1
    return Part("python", lines, most, remark=lambda hidden: in_traceback(hidden, "more frame"))


def in_traceback(hidden: int, what: str) -> str:
    """The remark that the other frames are in the error's `python_traceback`."""
    return "".join(f"({words} in .python_traceback)" for words in count(hidden, what))


def children_part(report: NativeReport) -> Part:
    """The processes below the worker."""
    lines = [
        f"{cut(child.command, PART_COLUMNS - _AFTER_COMMAND)}"
        f" ({child.age_s:.3g} s old, {child.cpu_s:.3g} s of CPU)"
        for child in report.children
    ]
    return Part(
        "children",
        lines,
        _CHILDREN,
        remark=lambda hidden: f"({hidden} more in .children)" if hidden else "",
    )


def output_part(log: str) -> Part:
    """The end of the job's output."""
    lines = [line for line in log.split("\n") if line.strip()]
    return Part("output", lines[-_LOG_LINES:], _LOG_LINES, is_end_shown=True)


def missing_part(report: NativeReport) -> Part:
    """What the report lacks, and why."""
    lines = [line for each in report.missing for line in wrap(each)]
    return Part(
        "missing", lines, len(lines), remark=lambda hidden: "(more in .missing)" if hidden else ""
    )


def short_name(frame: Frame) -> str:
    """The name of a native frame's function, which may be a screen long in C++."""
    return cut(frame.function, _FUNCTION_COLUMNS)


def position(frame: Frame) -> str:
    """Where the instruction of a native frame is."""
    return f"{frame.library}+{frame.offset:#x}" if frame.library else f"{frame.pc:#x}, not mapped"


def thread_of_job(text: str) -> PythonThread | None:
    """The thread that runs the job, in the stacks of a worker that runs: its main thread."""
    threads = threads_of(text)
    return threads[-1] if threads else None  # faulthandler begins with the youngest


def frames_of_job(thread: PythonThread | None) -> list[PythonFrame]:
    """The frames of a thread, without those of the pool itself."""
    frames = [] if thread is None else thread.frames
    return [frame for frame in frames if not frame.file.startswith(_OURS)]
