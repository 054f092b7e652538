"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

ReadFile = Callable[[str], str]


def usable_cpus() -> int:
    """The CPUs that this process may use: affinity, cut to the cgroup's quota, at least 1.

    A quota of 1.5 CPUs counts as 2: two processes use it up, one would not.
    """
    count = len(os.sched_getaffinity(0))
    quota = cgroup_quota(_read)
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cgroup_quota(read: ReadFile) -> float | None:
    """The smallest CPU quota among this process's cgroup and those above it, in CPUs.

    Args:
        read: returns a file's text, or raises OSError.

    Returns:
        None where there is no quota. See cgroups(7), and the kernel's
        `admin-guide/cgroup-v2.rst` (cpu.max) and `scheduler/sched-bwc.rst` (cpu.cfs_quota_us).
    """
    try:
        memberships = read("/proc/self/cgroup").splitlines()
        mounts = read("/proc/self/mountinfo").splitlines()
    except OSError:
        return None
    quotas = []
    for line in memberships:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            directories = _directories(mounts, path, "cgroup2", "")
            quotas += [_v2_quota(read, directory) for directory in directories]
        elif "cpu" in controllers.split(","):
            directories = _directories(mounts, path, "cgroup", "cpu")
            quotas += [_v1_quota(read, directory) for directory in directories]
    return min((quota for quota in quotas if quota is not None), default=None)


def _directories(
    mounts: Iterable[str], path: str, filesystem: str, controller: str
) -> Iterator[PurePosixPath]:
    """The cgroup's directory and those above it, as far as they are mounted here."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] != filesystem:
            continue
        if controller and controller not in kind[2].split(","):
            continue
        root, mount_point = PurePosixPath(fields[3]), PurePosixPath(fields[4])
        group = PurePosixPath(path)
        # In a container the mount may show only a part of the tree, or another one than
        # /proc/self/cgroup names: then the mount point is the closest that can be seen.
        inner = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        directory = mount_point / inner
        yield directory
        for parent in directory.parents:
            if parent.is_relative_to(mount_point):
                yield parent
        return


def _v2_quota(read: ReadFile, directory: PurePosixPath) -> float | None:
    try:
        quota, period = read(f"{directory}/cpu.max").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _v1_quota(read: ReadFile, directory: PurePosixPath) -> float | None:
    try:
        quota = int(read(f"{directory}/cpu.cfs_quota_us"))
        period = int(read(f"{directory}/cpu.cfs_period_us"))
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
