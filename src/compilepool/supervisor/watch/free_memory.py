"""How much memory runs may still take, and whether the kernel has killed for lack of memory."""

from __future__ import annotations

import time

from compilepool.linux.cgroups import (
    ReadFile,
    cgroup_directories,
    oom_kills_file,
    oom_kills_in,
    read_file,
)
from compilepool.supervisor.rules.memory import NEGLIGIBLE, MemoryHistory
from compilepool.supervisor.runs import Run

_RESERVE_SHARE = 0.05
_MAX_RESERVE = 1 << 30
_NO_LIMIT = 1 << 60  # cgroup v1 shows "no limit" as a number near 2**63

_V2 = ("memory.max", "memory.current", "")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


class MachineMemory:
    """Reads the free memory of the machine, and of the cgroups that this process is in.

    See proc(5) (MemAvailable), and the kernel's `admin-guide/cgroup-v2.rst` and
    `admin-guide/cgroup-v1/memory.rst`.

    Args:
        read: reads a file.
    """

    def __init__(self, read: ReadFile = read_file) -> None:
        self._read = read
        self._cgroups = [
            (directory, names)
            for controller, names in (("", _V2), ("memory", _V1))
            for directory in cgroup_directories(controller, read)
            if self._limit(directory, names) is not None
        ]

    def free(self) -> int | None:
        """The bytes that runs may still take, less a reserve for everything else.

        The reserve is 5 % of all memory, and 1 GiB at most.

        Returns:
            A negative number if the reserve is in use; None if the kernel does not tell.
        """
        rooms = [self._free_of_machine()]
        rooms += [self._free_of_cgroup(directory, names) for directory, names in self._cgroups]
        return min((room for room in rooms if room is not None), default=None)

    def _free_of_machine(self) -> int | None:
        try:
            lines = self._read("/proc/meminfo").splitlines()
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[:3]}
            return sizes["MemAvailable"] - _reserve(sizes["MemTotal"])
        except (OSError, ValueError, IndexError, KeyError):
            return None

    def _free_of_cgroup(self, directory: str, names: tuple[str, str, str]) -> int | None:
        limit = self._limit(directory, names)
        if limit is None:
            return None
        try:
            used = int(self._read(f"{directory}/{names[1]}"))
            for line in self._read(f"{directory}/memory.stat").splitlines():
                key, _, value = line.partition(" ")
                if key in (f"{names[2]}inactive_file", f"{names[2]}active_file"):
                    used -= int(value)  # the kernel drops those pages before it kills
        except (OSError, ValueError):
            return None
        return limit - _reserve(limit) - used

    def _limit(self, directory: str, names: tuple[str, str, str]) -> int | None:
        try:
            limit = int(self._read(f"{directory}/{names[0]}"))  # or "max"
        except (OSError, ValueError):
            return None
        return limit if limit < _NO_LIMIT else None


def _reserve(total: int) -> int:
    return min(_MAX_RESERVE, int(total * _RESERVE_SHARE))


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
