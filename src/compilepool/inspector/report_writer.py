"""Writes the inspector's report.

Each part is written at once, since the supervisor may kill the inspector at any time.
"""

from __future__ import annotations

import os

from compilepool.wire.native_report import ChildProcess, CrashSite, ThreadStack, to_line

MAX_REPORT = 256 * 1024
"""The most bytes of a report."""

_RESERVED = 8 * 1024  # bytes for the lines that say what is missing


class ReportWriter:
    """Writes the lines of a report to a descriptor, at most `MAX_REPORT` bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = 0
        self._left_out = 0

    def write(self, part: CrashSite | ThreadStack | ChildProcess) -> None:
        """Write one part, or skip it if the report is full."""
        line = to_line(part)
        if self._written + len(line) > MAX_REPORT - _RESERVED:
            self._left_out += 1
        else:
            self._write(line)

    def missing(self, text: str) -> None:
        """Write what the report lacks, and why."""
        line = to_line(text)
        if self._written + len(line) <= MAX_REPORT:
            self._write(line)

    def close(self) -> None:
        """Write how much was skipped."""
        if self._left_out:
            self.missing(f"{self._left_out} threads or children: the report is full")

    def _write(self, line: bytes) -> None:
        self._written += len(line)
        while line:
            line = line[os.write(self._fd, line) :]
