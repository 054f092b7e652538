"""How much memory a process takes, page by page, proc(5)."""

from __future__ import annotations

from compilepool.wire.process_tree import read_proc


def smaps_rollup(pid: int | str = "self") -> dict[str, int]:
    """Bytes by the names of `/proc/PID/smaps`. Slow: the kernel looks at each page.

    Raises:
        OSError: the process is gone, or may not be looked at.
        ValueError: it has no memory any more.
    """
    _, *lines = read_proc(f"/proc/{pid}/smaps_rollup").splitlines() or [b""]
    values = {}
    for line in lines:
        name, _, rest = line.partition(b":")
        values[name.decode()] = int(rest.split()[0]) * 1024
    if "Private_Dirty" not in values:
        raise ValueError(f"process {pid} has no memory")
    return values


def unwritten_file_mappings() -> list[tuple[int, int]]:
    """Where this process has files mapped that it cannot write to, and has not: start and end.

    Not where it has: the loader writes to what it then protects.

    Raises:
        OSError: the kernel does not tell.
    """
    found = []
    start = end = 0
    is_candidate = False
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "Anonymous" and is_candidate and rest.split()[0] == "0":
                found.append((start, end))
            fields = line.split()
            if len(fields) >= 5 and "-" in fields[0] and not fields[0].endswith(":"):
                start, end = (int(number, 16) for number in fields[0].split("-"))
                # A path, not [vdso]: those are no files.
                is_file = len(fields) > 5 and fields[5].startswith("/")
                is_candidate = is_file and fields[1].startswith("r-")
    return found
