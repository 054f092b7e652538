"""What happens when somebody removes the files by which programs meet."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.proc import is_alive, wait_until
from tests.sharing import Program, programs, supervisors

WHERE = "pool.submit(jobs.where).result()[1]"


def files_of(runtime: Path) -> dict[str, int]:
    """The inodes of the files there."""
    return {path.name: path.lstat().st_ino for path in (runtime / "compilepool").iterdir()}


def remove(runtime: Path, what: str) -> None:
    if what == "directory":
        shutil.rmtree(runtime / "compilepool")
    for path in (runtime / "compilepool").glob("*"):
        if what in ("both", path.suffix):
            path.unlink()


@pytest.mark.parametrize("what", ["both", "directory"])
def test_who_comes_later_meets_elsewhere_and_nobody_removes_the_files_of_others(
    runtime: Path, what: str
) -> None:
    with programs(3) as (first, second, third):
        parents = [first.run(WHERE)]
        (supervisor,) = supervisors()
        remove(runtime, what)
        parents.append(second.run(WHERE))
        assert parents[0] != parents[1]
        files = files_of(runtime)
        assert first.run(WHERE) == parents[0]
        assert first.end() == ""
        assert wait_until(lambda: not is_alive(supervisor))
        assert files_of(runtime) == files
        assert third.run(WHERE) == parents[1]


def test_a_lock_file_that_is_gone_is_not_missed(runtime: Path) -> None:
    with programs(2) as (first, second):
        parent = first.run(WHERE)
        remove(runtime, ".lock")
        assert second.run(WHERE) == parent


def test_a_supervisor_that_has_neither_lock_nor_socket_dies_and_all_meet_again(
    runtime: Path,
) -> None:
    with programs(2) as (first, second):
        first.run(WHERE)
        (supervisor,) = supervisors()
        remove(runtime, "both")
        parent = second.run(WHERE)
        os.kill(supervisor, signal.SIGKILL)
        assert wait_until(lambda: first.run(WHERE) == parent)


def test_who_finds_no_socket_gets_a_private_pool_within_the_bound(runtime: Path) -> None:
    with programs(2) as (first, second):
        parent = first.run(WHERE)
        remove(runtime, ".sock")
        second.run("import compilepool.client.connection.meeting as m; m.PATIENCE_S = 0.3")
        assert second.run(WHERE) != parent  # a private pool
        assert first.run(WHERE) == parent
        error = second.end()
        assert error.count("the pool is not shared") == 1


def test_a_runtime_directory_that_is_read_only(runtime: Path) -> None:
    """Root may write everywhere, so a file system does that refuses."""
    program = Program(XDG_RUNTIME_DIR="/proc/self/fdinfo")
    try:
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        error = program.end()
        assert error.count("the pool is not shared") == 1
        assert "/proc/self/fdinfo/compilepool" in error
    finally:
        program.close()
