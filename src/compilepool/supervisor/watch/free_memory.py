"""How much memory runs may still take, and whether the kernel has killed for lack of memory."""

from __future__ import annotations

import time

from compilepool.linux.cgroups import oom_kills_file, oom_kills_in
from compilepool.linux.free_memory import MachineMemory
from compilepool.supervisor.rules.memory import NEGLIGIBLE, MemoryHistory
from compilepool.supervisor.runs import Run

OLD_S = 0.25
"""The age in seconds at which a measurement of free memory is too old to start a run."""

SHORT_S = 0.05
"""The same age while runs wait for memory."""


class MemoryRoom:
    """How much memory there is, and how much the runs of one pool have taken."""

    def __init__(self) -> None:
        self._machine = MachineMemory()
        self._history = MemoryHistory()
        self._seen_at = 0.0

    def expected(self, run: Run) -> int:
        """The bytes that a run will probably take; 0 if negligible or unknown."""
        declared = run.terms.expected_memory
        if declared is not None:
            return declared
        return self._history.expected(run.kind) if self._history else 0

    def note(self, run: Run, peak_bytes: int) -> None:
        """Note how many bytes a run has taken at its peak."""
        if self._history or peak_bytes >= NEGLIGIBLE:
            self._history.note(run.kind, peak_bytes)

    def free(self, age_s: float) -> int | None:
        """Measure the free memory, unless the last measurement is younger than `age_s` seconds.

        Returns:
            See `MachineMemory.free`; None, too, if the last measurement is young enough.
        """
        now = time.monotonic()
        if now - self._seen_at < age_s:
            return None
        self._seen_at = now
        return self._machine.free()


_JUST_NOW_S = 1.0


class OomWatch:
    """Notices kills for lack of memory, by the kernel's counter of them."""

    def __init__(self) -> None:
        self._path = oom_kills_file()
        self._count = self._read()
        self._seen_at = 0.0

    def reset(self) -> None:
        """Read the counter. `has_struck` reports the kills that follow."""
        self._count = self._read()

    def has_struck(self) -> bool | None:
        """Whether the kernel has killed a process since the counter was last read.

        The answer stays true for a second, because the kernel may kill several processes at once.

        Returns:
            None if the kernel does not tell.
        """
        before, self._count = self._count, self._read()
        if before is None or self._count is None:
            return None
        now = time.monotonic()
        if self._count > before:
            self._seen_at = now
        return now - self._seen_at < _JUST_NOW_S

    def _read(self) -> int | None:
        return None if self._path is None else oom_kills_in(self._path)
