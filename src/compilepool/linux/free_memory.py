"""The free memory of the machine, and of the cgroups that a process is in."""

from __future__ import annotations

from compilepool.linux.cgroups import ReadFile, cgroup_directories, read_file

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
