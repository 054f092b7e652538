"""Gates that jobs wait at, for tests that say when they go on."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Self


class Gate:
    """A file that is locked until `open`, or the end of the `with` block, or of this process.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def open(self) -> None:
        """Let all that wait go on, and all that come."""
        self._file.close()


def wait_at(gate: Path) -> None:
    """In a job: wait until the gate is open."""
    with gate.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
