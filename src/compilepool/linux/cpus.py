"""The number of CPUs that the calling process may use."""

from __future__ import annotations

import math
import os

from compilepool.linux.cgroups import ReadFile, cgroup_directories, read_file


def usable_cpus() -> int:
    """The number of CPUs that this process may use: its affinity, reduced to its cgroup's quota.

    It is at least 1. A quota of 1.5 CPUs counts as 2, because one process alone would not use it
    up.
    """
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cgroup_quota(read: ReadFile = read_file) -> float | None:
    """The smallest CPU quota of this process's cgroup and the cgroups above it, in CPUs.

    See cgroups(7), and `admin-guide/cgroup-v2.rst` (cpu.max) and `scheduler/sched-bwc.rst`
    (cpu.cfs_quota_us) in the kernel's documentation.

    Args:
        read: the function that reads a file.

    Returns:
        The quota, or None if there is none.
    """
    quotas = [_v2_quota(read, directory) for directory in cgroup_directories("", read)]
    quotas += [_v1_quota(read, directory) for directory in cgroup_directories("cpu", read)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _v2_quota(read: ReadFile, directory: str) -> float | None:
    try:
        quota, period = read(f"{directory}/cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _v1_quota(read: ReadFile, directory: str) -> float | None:
    try:
        quota = int(read(f"{directory}/cpu.cfs_quota_us"))
        period = int(read(f"{directory}/cpu.cfs_period_us"))
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
