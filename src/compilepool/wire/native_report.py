"""What the inspector finds in a process: the crash, native stacks, children.

The inspector writes a report as JSON lines, one part to a line, so a report that is cut off still
tells what came before the cut. The client parses it. It trusts nothing in the report, since the
inspected process is broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from compilepool.light_typing import Any, NamedTuple

MAX_FRAMES = 64
"""The most frames of one thread in a report."""

MAX_TEXT = 300
"""The most characters of a function's name or a command line in a report."""

UNKNOWN = "??"
"""The name of a function whose name is not known."""

_RUNTIME = ("libc.so", "libc-", "libpthread", "libstdc++", "libc++", "libgcc_s", "ld-", "[vdso]")
_MAX_RUNTIME_FRAMES = 2  # memcpy, or malloc and what it calls, are worth showing

_STATES = {  # the state letters of /proc/PID/stat, proc(5)
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "dead",
    "X": "dead",
    "I": "idle",
}


class CrashSite(NamedTuple):
    """Where a thread crashed, and what it accessed.

    Attributes:
        tid: the thread's id.
        thread_name: the thread's name.
        pc: the address of the instruction that crashed.
        address: the address that the instruction accessed; None if it accessed none, or the address
            is unknown.
        access: "read", "write" or "execute"; None if there is no address.
        trap: the number of the processor's exception (on x86-64: 0 division, 6 illegal instruction,
            13 general protection, 14 page fault); None if the signal was sent, as abort() does.
        library: the name of the file that holds the instruction, without its folder; None if no
            memory is mapped there.
        offset: the instruction's offset in the library, in bytes.
    """

    tid: int
    thread_name: str
    pc: int
    address: int | None = None
    access: str | None = None
    trap: int | None = None
    library: str | None = None
    offset: int = 0


class Frame(NamedTuple):
    """One call on a stack.

    Attributes:
        function: the demangled name of the function; `UNKNOWN` if it has none.
        library: the name of the file that holds the function, without its folder; None if no memory
            is mapped there.
        offset: the instruction's offset in the library, in bytes.
        pc: the instruction's address. In a caller's frame, it is the return address.
    """

    function: str
    library: str | None
    offset: int
    pc: int


class ThreadStack(NamedTuple):
    """The native stack of one thread.

    Attributes:
        tid: the thread's id.
        name: the thread's name.
        state: the letter of the thread's state, proc(5).
        is_crashed: whether the thread has crashed.
        frames: the calls, the most recent first.
        is_cut: whether the stack has more frames than these.
    """

    tid: int
    name: str
    state: str
    is_crashed: bool
    frames: list[Frame]
    is_cut: bool


class ChildProcess(NamedTuple):
    """A descendant of the inspected process.

    Attributes:
        pid: the process's PID.
        parent_pid: the PID of its parent.
        command: its command line.
        age_s: the seconds since it was started.
        state: the letter of its state, proc(5).
        cpu_s: the CPU time that it has used, in seconds.
    """

    pid: int
    parent_pid: int
    command: str
    age_s: float
    state: str
    cpu_s: float


class NativeReport(NamedTuple):
    """A whole report.

    Attributes:
        crash: the crash; None if there is none.
        threads: the stacks. Crashed threads come first.
        missing: what the report lacks, why, and what would allow it, each as a sentence for people.
        children: the descendants of the process, parents before their children.
    """

    crash: CrashSite | None
    threads: list[ThreadStack]
    missing: list[str]
    children: list[ChildProcess]

    @classmethod
    def of_lines(cls, data: bytes) -> NativeReport:
        """Parse the lines that `to_line` wrote, and skip every other line.

        If a thread has several stacks in the report, the last one counts: the inspector writes a
        stack without names first and again with names.
        """
        crash: CrashSite | None = None
        threads: dict[int, ThreadStack] = {}
        missing: list[str] = []
        children: list[ChildProcess] = []
        for line in data.split(b"\n"):
            match _part(line):
                case CrashSite() as site:
                    crash = crash or site
                case ThreadStack() as stack:
                    threads[stack.tid] = stack
                case ChildProcess() as child:
                    children.append(child)
                case str() as text:
                    missing.append(text)
        crashed_first = sorted(threads.values(), key=lambda thread: not thread.is_crashed)
        return cls(crash, crashed_first, missing, children)


def to_line(part: CrashSite | ThreadStack | ChildProcess | str) -> bytes:
    """One part of a report as a JSON line. A `str` becomes an entry of `NativeReport.missing`."""
    if isinstance(part, str):
        return _line("missing", part)
    kind = {CrashSite: "crash", ThreadStack: "thread", ChildProcess: "child"}[type(part)]
    fields = part._asdict()
    if isinstance(part, ThreadStack):
        fields["frames"] = [frame._asdict() for frame in part.frames]
    return _line(kind, fields)


def native_traceback(report: NativeReport) -> str:
    """All stacks of a report as text, crashed threads first; empty if there are none."""
    return "\n\n".join(_thread_text(thread) for thread in report.threads)


def telling_frames(thread: ThreadStack) -> list[Frame]:
    """The frames of a crashed thread that say why it crashed.

    If the runtime libraries end the process (abort, a double free, an uncaught exception), the
    innermost frames are theirs. Of those, only the function that the program called remains,
    because it and its caller tell the reason.
    """
    own = 0
    while own < len(thread.frames) and is_of_runtime(thread.frames[own]):
        own += 1
    return thread.frames[own - 1 :] if own > _MAX_RUNTIME_FRAMES else thread.frames


def is_of_runtime(frame: Frame) -> bool:
    """Whether a frame is in a library that every program has, such as libc."""
    return frame.library is not None and frame.library.startswith(_RUNTIME)


def _thread_text(thread: ThreadStack) -> str:
    state = "crashed" if thread.is_crashed else _STATES.get(thread.state, thread.state)
    lines = [f"Thread {thread.tid} '{thread.name}' ({state}), most recent call first:"]
    frames = telling_frames(thread) if thread.is_crashed else thread.frames
    left_out = len(thread.frames) - len(frames)
    if left_out:
        lines.append(f"  (without the {left_out} calls by which the runtime ended the process)")
    for number, frame in enumerate(frames):
        if frame.library is None:
            place = f"{frame.pc:#x}, not mapped"
        else:
            place = f"{frame.library}+{frame.offset:#x}"
        lines.append(f"  #{number} {frame.function} ({place})")
    if thread.is_cut:
        lines.append(f"  … cut at {len(thread.frames)} frames")
    return "\n".join(lines)


def _line(kind: str, value: object) -> bytes:
    return json.dumps({kind: value}).encode() + b"\n"


def _part(line: bytes) -> CrashSite | ThreadStack | ChildProcess | str | None:
    try:
        ((kind, value),) = json.loads(line).items()
        return _PARSERS[kind](value)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _crash_site(fields: Mapping[str, Any]) -> CrashSite:
    return CrashSite(
        tid=_integer(fields["tid"]),
        thread_name=_text(fields["thread_name"]),
        pc=_integer(fields["pc"]),
        address=_optional_integer(fields["address"]),
        access=_optional_text(fields["access"]),
        trap=_optional_integer(fields["trap"]),
        library=_optional_text(fields["library"]),
        offset=_integer(fields["offset"]),
    )


def _thread_stack(fields: Mapping[str, Any]) -> ThreadStack:
    return ThreadStack(
        tid=_integer(fields["tid"]),
        name=_text(fields["name"]),
        state=_text(fields["state"]),
        is_crashed=bool(fields["is_crashed"]),
        frames=[
            Frame(
                function=_text(frame["function"]),
                library=_optional_text(frame["library"]),
                offset=_integer(frame["offset"]),
                pc=_integer(frame["pc"]),
            )
            for frame in fields["frames"]
        ],
        is_cut=bool(fields["is_cut"]),
    )


def _child_process(fields: Mapping[str, Any]) -> ChildProcess:
    return ChildProcess(
        pid=_integer(fields["pid"]),
        parent_pid=_integer(fields["parent_pid"]),
        command=_text(fields["command"]),
        age_s=_seconds(fields["age_s"]),
        state=_text(fields["state"]),
        cpu_s=_seconds(fields["cpu_s"]),
    )


def _integer(value: object) -> int:
    if not isinstance(value, int) or not -(1 << 64) < value < 1 << 64:
        raise TypeError
    return value


def _optional_integer(value: object) -> int | None:
    return None if value is None else _integer(value)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TypeError
    return float(value)


def _text(value: object) -> str:
    """The text with a blank for each unprintable character: jobs choose names and command lines."""
    if not isinstance(value, str):
        raise TypeError
    return "".join(letter if letter.isprintable() else " " for letter in value)


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


_PARSERS: dict[str, Callable[[Any], CrashSite | ThreadStack | ChildProcess | str]] = {
    "crash": _crash_site,
    "thread": _thread_stack,
    "child": _child_process,
    "missing": _text,
}
