"""How much memory a job takes: its worker, and all that is below it."""

from __future__ import annotations

import contextlib
import os

from compilepool.wire.failure import ProcessMemory
from compilepool.wire.process_tree import descendants, read_proc
from compilepool.wire.smaps import smaps_rollup
from compilepool.wire.status import UsedBefore

_PAGE = os.sysconf("SC_PAGE_SIZE")
_FORKED_NO_EXEC = 0x40  # PF_FORKNOEXEC, <linux/sched.h>; in proc(5)'s (9) flags
_SHOWN = 5


def resident_growth(worker_pid: int, before: UsedBefore) -> int:
    """At most so many bytes does the job take: cheap to ask, and mostly too much.

    What its children share with others counts whole, for each of them.

    Args:
        worker_pid: its worker.
        before: what the worker had before the job.
    """
    below = sum(_resident(pid) for pid, _ in descendants(worker_pid))
    return max(0, _resident(worker_pid) - before.resident) + below


def memory_of_job(worker_pid: int, before: UsedBefore) -> list[ProcessMemory]:
    """What the job takes, by process, the largest first: what it shares counts once, or not at all.

    In its worker that is what it has added, so neither the preload nor what earlier jobs have left.
    Files that are mapped are not counted: the kernel can drop their pages. Writing to what the
    preload has left is not noticed, for it has taken that memory already.
    """
    # What a child that runs no program of its own shares, it shares with the worker, where it is
    # counted, or with the fork server.
    sharing = {worker_pid}
    found = [_of_worker(worker_pid, before)]
    for pid, parent_pid in descendants(worker_pid):
        if parent_pid in sharing and _is_forked_only(pid):
            sharing.add(pid)
        with contextlib.suppress(OSError, ValueError, KeyError):
            rollup = smaps_rollup(pid)
            anonymous = rollup["Private_Dirty" if pid in sharing else "Pss_Anon"]
            total = anonymous + rollup["Pss_Shmem"] + rollup["SwapPss"]
            found.append(ProcessMemory(pid, _name(pid), total))
    return sorted(found, key=lambda process: -process.bytes)


def largest(processes: list[ProcessMemory]) -> tuple[ProcessMemory, ...]:
    """Those that are worth to be told."""
    return tuple(processes[:_SHOWN])


def _of_worker(pid: int, before: UsedBefore) -> ProcessMemory:
    total = 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        rollup = smaps_rollup(pid)
        total = rollup["Anonymous"] - before.anonymous + rollup["Pss_Shmem"] + rollup["SwapPss"]
    return ProcessMemory(pid, _name(pid), max(0, total))


def _resident(pid: int) -> int:
    try:
        return int(read_proc(f"/proc/{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _is_forked_only(pid: int) -> bool:
    """Whether it has not exec'ed since it was forked."""
    try:
        fields = read_proc(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return bool(int(fields[6]) & _FORKED_NO_EXEC)
    except (OSError, IndexError, ValueError):
        return False


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process that is gone"
