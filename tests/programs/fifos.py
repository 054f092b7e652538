"""FIFOs that jobs wait at, for tests that must know when one does."""

from __future__ import annotations

import os
from pathlib import Path

from tests.proc import wait_until


class Fifo:
    """A FIFO that jobs wait at: `run_until` is in it when `is_reached` has returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = -1
        os.mkfifo(path)

    def is_reached(self) -> None:
        """Wait until a job waits."""
        assert wait_until(self._try_to_open)

    def open(self) -> None:
        """Let those that wait go on."""
        os.close(self._end)
        self._end = -1

    def close(self) -> None:
        if self._end >= 0:
            self.open()

    def _try_to_open(self) -> bool:
        try:
            self._end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody reads
            return False
        return True


def run_until(gate: Path, value: str = "ran") -> str:
    gate.read_text()
    return value
