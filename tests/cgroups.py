"""Memory cgroups for tests, where this user may make some."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.proc import wait_until


def memory_cgroup_limited_to(size: int) -> Path:
    """A new cgroup; skips where none can be made."""
    version_1, version_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root, controller, limits in (
            (version_1, "memory", ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")),
            (version_2, "", ("memory.max", "memory.swap.max")),
        ):
            group = root / path.lstrip("/") / f"compilepool-test-{os.getpid()}"
            if controller != controllers or not group.parent.is_dir():
                continue
            with contextlib.suppress(OSError):
                group.mkdir()
                (group / limits[0]).write_text(str(size))
                with contextlib.suppress(OSError):  # where swap is not counted
                    (group / limits[1]).write_text(str(size))
                return group
            with contextlib.suppress(OSError):
                group.rmdir()
    pytest.skip("this user may not make a cgroup that limits memory")


def remove_cgroup(group: Path) -> None:
    """Remove a cgroup when all its processes are gone."""
    assert wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
