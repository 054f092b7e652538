"""A kept crash in a few words."""

from __future__ import annotations

import signal

from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.text import printable


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
    """The call in which it happened; "" if it is unknown, or the folder is of an old version."""
    return printable(str(crash.report.get("where") or ""))


def local_time(crash: KeptCrash) -> str:
    """When it was kept, on this user's clock."""
    return f"{crash.time.astimezone():%Y-%m-%d %H:%M:%S}"
