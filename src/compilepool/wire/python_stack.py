"""The parser of what faulthandler writes: the stacks of all Python threads.

The format is that of CPython's `Modules/faulthandler.c` and `Python/traceback.c`:

    Fatal Python error: Segmentation fault

    Thread 0x00007f33b7fff6c0 (most recent call first):
      File "/usr/lib/python3.11/threading.py", line 320 in wait

    Current thread 0x00007f33bf3c4740 (most recent call first):
      File "/home/me/kernel.py", line 7 in compile
      File "/home/me/kernel.py", line 9 in <module>

    Extension modules: numpy.core._multiarray_umath (total: 1)

Only a crash has the first and the last line. The youngest thread comes first, the main thread last.
The current thread is the one that crashed; if a thread crashed that is not Python's, there is none.

A worker's crash socket brings bytes, of which a crash is only the end and may be cut anywhere. So
the functions that look for a crash take bytes, and those that read stacks take text.
"""

from __future__ import annotations

import re
import signal

from compilepool.light_typing import NamedTuple

_CRASH_HEAD = "Fatal Python error"
_CRASH_HEAD_BYTES = _CRASH_HEAD.encode()
_CURRENT = "Current thread 0x"
_OTHER = "Thread 0x"

# `faulthandler_handlers` in `Modules/faulthandler.c`.
_SIGNALS = {
    b"Segmentation fault": signal.SIGSEGV,
    b"Bus error": signal.SIGBUS,
    b"Aborted": signal.SIGABRT,
    b"Floating": signal.SIGFPE,  # "point exception", or "-point exception"
    b"Illegal instruction": signal.SIGILL,
}
# Compiled when they are first used: most processes never see a crash.
_SIGNAL = _CRASH_HEAD_BYTES + b": (" + b"|".join(_SIGNALS) + b")"
_FRAME = r'File "(?P<file>.*)", line (?P<line>[0-9]{1,9}) in (?P<function>.+)'


class PythonFrame(NamedTuple):
    """One line of a thread's stack.

    Attributes:
        text: the line, without its indentation.
        file: the path of the source file; empty if the line is about no call ("...", "<no Python
            frame>", "Garbage-collecting") or does not name the file.
        line: the line number in that file; 0 if `file` is empty.
        function: the function's name; empty if `file` is empty.
    """

    text: str
    file: str = ""
    line: int = 0
    function: str = ""


class PythonThread(NamedTuple):
    """The stack of one Python thread.

    Attributes:
        is_current: whether this thread has crashed, or has written the stacks.
        frames: the calls, most recent first.
    """

    is_current: bool
    frames: list[PythonFrame]


def tells_of_crash(data: bytes | bytearray) -> bool:
    """Whether a crash is reported anywhere in what a process has written."""
    return _CRASH_HEAD_BYTES in data


def is_crash(text: str) -> bool:
    """Whether a text is faulthandler's report of a crash."""
    return text.startswith(_CRASH_HEAD)


def fatal_signal(data: bytes | bytearray) -> signal.Signals | None:
    """The fatal signal that a process has reported; None if it has reported none."""
    found = re.search(_SIGNAL, data)
    return _SIGNALS[found[1]] if found else None


def crash_begins(data: bytes | bytearray) -> int:
    """The index at which the report of a crash begins; the length of `data` if there is none.

    The report may be cut: its first letters are enough.
    """
    found = data.find(_CRASH_HEAD_BYTES)
    if found >= 0:
        return found
    return next(
        at
        for at in range(max(0, len(data) - len(_CRASH_HEAD_BYTES)), len(data) + 1)
        if _CRASH_HEAD_BYTES.startswith(data[at:])
    )


def crash_text(data: bytes) -> str:
    """The report of a crash, with the current thread first; empty if there is none."""
    if not tells_of_crash(data):
        return ""
    head, *threads = data[crash_begins(data) :].decode(errors="replace").split("\n\n")
    threads.sort(key=lambda thread: not thread.startswith(_CURRENT))
    return "\n\n".join([head, *threads])


def last_crash(text: str) -> str:
    """The last report of a crash in a text that may have several; empty if there is none."""
    start = text.rfind(_CRASH_HEAD)
    return text[start:] if start >= 0 else ""


def threads_of(text: str) -> list[PythonThread]:
    """The threads in a text, in the order of the text. Everything else is skipped."""
    blocks = [block.strip("\n").split("\n") for block in text.split("\n\n")]
    return [
        PythonThread(head.startswith(_CURRENT), [_frame(line.strip()) for line in lines])
        for head, *lines in blocks
        if head.startswith((_CURRENT, _OTHER))
    ]


def crashed_thread(text: str) -> PythonThread | None:
    """The thread that says most about a crash: the current one, or else the first.

    Returns:
        None if the text is no report of a crash, or has no thread.
    """
    threads = threads_of(text) if is_crash(text) else []
    return min(threads, key=lambda thread: not thread.is_current, default=None)


def _frame(text: str) -> PythonFrame:
    found = re.fullmatch(_FRAME, text)
    if found is None:
        return PythonFrame(text)
    return PythonFrame(text, found["file"], int(found["line"]), found["function"])
