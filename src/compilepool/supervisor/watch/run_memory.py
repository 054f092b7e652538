"""Measures how much memory a run takes: its worker, and all processes below the worker."""

from __future__ import annotations

import contextlib

from compilepool.linux import proc
from compilepool.wire.failure import ProcessMemory
from compilepool.wire.status_page import UsedBefore

_SHOWN = 5


def resident_growth(worker_pid: int, before: UsedBefore) -> int:
    """An upper bound of the memory that the run takes, in bytes. It is cheap to read.

    Pages that several processes below the worker share count once for each of them.

    Args:
        worker_pid: the worker's PID.
        before: what the worker had used before the run.
    """
    below = sum(_resident(pid) for pid, _ in proc.descendants(worker_pid))
    return max(0, _resident(worker_pid) - before.resident) + below


def memory_of_run(worker_pid: int, before: UsedBefore) -> list[ProcessMemory]:
    """The memory that the run takes, by process, the largest first.

    Shared memory counts once at most. Of the worker, only what the run has added counts, not the
    preload and not what earlier runs have left. Mapped files do not count, because the kernel can
    drop their pages. When the run writes to pages of the preload, that does not show, because the
    worker had those pages before.

    Args:
        worker_pid: the worker's PID.
        before: what the worker had used before the run.
    """
    # A child that has not exec'ed shares its memory with the worker, where it is counted, or with
    # the fork server.
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
    """The first few processes of a list that is sorted by memory, enough for a report."""
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
    """Whether the process has not exec'ed since it was forked."""
    try:
        return not proc.stat(pid).has_execed
    except (OSError, ValueError):
        return False
