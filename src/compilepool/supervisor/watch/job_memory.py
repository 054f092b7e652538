"""How much memory a job takes: its worker, and all that is below it."""

from __future__ import annotations

import contextlib

from compilepool.linux import proc
from compilepool.wire.failure import ProcessMemory
from compilepool.wire.status_page import UsedBefore

_SHOWN = 5


def resident_growth(worker_pid: int, before: UsedBefore) -> int:
    """At most so many bytes does the job take: cheap to ask, and mostly too much.

    What its children share with others counts whole, for each of them.

    Args:
        worker_pid: its worker.
        before: what the worker had before the job.
    """
    below = sum(_resident(pid) for pid, _ in proc.descendants(worker_pid))
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
    for pid, parent_pid in proc.descendants(worker_pid):
        if parent_pid in sharing and _is_forked_only(pid):
            sharing.add(pid)
        with contextlib.suppress(OSError, ValueError, KeyError):
            rollup = proc.smaps_rollup(pid)
            anonymous = rollup["Private_Dirty" if pid in sharing else "Pss_Anon"]
            total = anonymous + rollup["Pss_Shmem"] + rollup["SwapPss"]
            found.append(ProcessMemory(pid, proc.name_of(pid), total))
    return sorted(found, key=lambda process: -process.bytes)


def largest(processes: list[ProcessMemory]) -> tuple[ProcessMemory, ...]:
    """Those that are worth to be told."""
    return tuple(processes[:_SHOWN])


def _of_worker(pid: int, before: UsedBefore) -> ProcessMemory:
    total = 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        rollup = proc.smaps_rollup(pid)
        total = rollup["Anonymous"] - before.anonymous + rollup["Pss_Shmem"] + rollup["SwapPss"]
    return ProcessMemory(pid, proc.name_of(pid), max(0, total))


def _resident(pid: int) -> int:
    try:
        return proc.statm(pid).resident
    except (OSError, IndexError, ValueError):
        return 0


def _is_forked_only(pid: int) -> bool:
    """Whether it has not exec'ed since it was forked."""
    try:
        return not proc.stat(pid).has_execed
    except (OSError, ValueError):
        return False
