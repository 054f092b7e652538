"""`compilepool report`: makes a page of traces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compilepool.observe.trace_report.page import write_report
from compilepool.text import printable


def make_report(traces: Sequence[Path], output: Path) -> None:
    """Write the report of some traces, and print in a few lines what it says.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a trace is none, or is not whole.
    """
    figures = write_report(traces, output)
    print("\n".join(_lines(figures)))
    print(printable(f"report    {output.absolute()}"))
    sys.stdout.flush()


def _lines(figures: dict[str, Any]) -> list[str]:
    capacity = figures["capacity"]
    whole = sum(capacity.values()) or 1
    counts = [f"{count} {outcome}" for outcome, count in figures["outcomes"].items()]
    lost = [
        f"{kind.replace('_', ' ')} {us / whole:.0%}"
        for kind, us in sorted(capacity.items(), key=lambda each: -each[1])
        if kind != "busy" and us / whole >= 0.005
    ]
    return [
        f"jobs      {figures['jobs']}: {', '.join(counts) or 'none has ended'}",
        f"time      {figures['wall_us'] / 1e6:.3g} s, {figures['run_us'] / 1e6:.3g} s in workers",
        f"workers   {figures['workers']}, busy for {capacity['busy'] / whole:.0%}"
        + (f"; lost: {', '.join(lost)}" if lost else ""),
    ]
