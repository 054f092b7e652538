"""Memory cgroups for tests, where this user may make some."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, wait_until
from tests.programs.running import HERE


def run_with_memory(size: int, program: str) -> str:
    """Run one of `tests/programs`, which moves itself to the cgroup that is its argument.

    Args:
        size: the bytes of memory that it may have, with all that it starts.
        program: the name of its file.

    Returns:
        What it has written; skips where no cgroup can be made.
    """
    group = _memory_cgroup_limited_to(size)
    try:
        run = subprocess.run(
            [sys.executable, HERE / program, group],
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_S,
            check=False,
        )
    finally:
        _remove_cgroup(group)
    assert run.returncode == 0, run.stderr
    return run.stdout


def _memory_cgroup_limited_to(size: int) -> Path:
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


def _remove_cgroup(group: Path) -> None:
    """Remove a cgroup when all its processes are gone."""
    assert wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
