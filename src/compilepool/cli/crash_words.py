"""A kept crash in a few words."""

from __future__ import annotations

import os
import re
import signal

from compilepool.client.kept_crash import KeptCrash
from compilepool.wire.native_report import UNKNOWN

_CRASHED_THREAD = re.compile(
    r"^Thread .*\(crashed\).*\n(?P<frames>(?: +#\d+ .*\n?)+)", re.MULTILINE
)
_NATIVE_FRAME = re.compile(r"#\d+ (?P<frame>.+)")
_PYTHON_FRAME = re.compile(
    r'^Current thread .*\n +File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.+)',
    re.MULTILINE,
)


def what_happened(crash: KeptCrash) -> str:
    """The signal or the exit code that a crash ended with."""
    return name_of_end(crash.report.get("signal"), crash.report.get("exitcode"))


def name_of_end(number: int | None, exitcode: int | None) -> str:
    """The end of a process: one of its signal and its exit code is None."""
    if number is None:
        return "crashed" if exitcode is None else f"exit code {exitcode}"
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def where_it_happened(crash: KeptCrash) -> str:
    """The call in which it happened: the native one if known, else Python's; "" if neither is."""
    if found := _CRASHED_THREAD.search(str(crash.report.get("native_traceback", ""))):
        frames = _NATIVE_FRAME.findall(found["frames"])
        named = (frame for frame in frames if not frame.startswith(UNKNOWN))
        return printable(next(named, frames[0]))
    if found := _PYTHON_FRAME.search(str(crash.report.get("python_traceback", ""))):
        file = os.path.basename(found["file"])
        return printable(f"{found['function']} ({file}:{found['line']})")
    return ""


def local_time(crash: KeptCrash) -> str:
    """When it was kept, on this user's clock."""
    return f"{crash.time.astimezone():%Y-%m-%d %H:%M:%S}"


def printable(text: str) -> str:
    """Text that cannot make a terminal do anything: jobs choose their names as they like."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
