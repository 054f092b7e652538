"""What the processes below one are, proc(5)."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from compilepool.wire.native_report import MAX_TEXT, ChildProcess
from compilepool.wire.process_tree import descendants

MAX_CHILDREN = 256


def processes_below(pid: int) -> Iterator[ChildProcess]:
    """The descendants of a process, parents before their children, at most `MAX_CHILDREN`."""
    for child, _ in itertools.islice(descendants(pid), MAX_CHILDREN):
        with contextlib.suppress(OSError, IndexError, ValueError):
            yield _child(child)


def _child(pid: int) -> ChildProcess:
    with open(f"/proc/{pid}/stat", "rb") as file:
        head, _, tail = file.read().rpartition(b")")
    fields = tail.split()  # the first is proc(5)'s (3) state
    name = head.partition(b"(")[2]
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        command = file.read(4 * MAX_TEXT).replace(b"\0", b" ").strip() or b"[" + name + b"]"
    with open("/proc/uptime") as file:
        uptime_s = float(file.read().split()[0])
    ticks = os.sysconf("SC_CLK_TCK")
    return ChildProcess(
        pid=pid,
        parent_pid=int(fields[1]),
        command=command.decode(errors="replace")[:MAX_TEXT],
        age_s=round(max(0.0, uptime_s - int(fields[19]) / ticks), 2),
        state=fields[0].decode(),
        cpu_s=(int(fields[11]) + int(fields[12])) / ticks,
    )
