"""How much memory a process takes, page by page, proc(5)."""

from __future__ import annotations


def smaps_rollup(pid: int | str = "self") -> dict[str, int]:
    """Bytes by the names of `/proc/PID/smaps`. Slow: the kernel looks at each page.

    Raises:
        OSError: the process is gone, or may not be looked at.
        ValueError: it has no memory any more.
    """
    values = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        next(file, "")
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    if "Private_Dirty" not in values:
        raise ValueError(f"process {pid} has no memory")
    return values
