"""Who is below a process, and that only those are signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from compilepool.linux.pidfds import signal_descendants
from compilepool.linux.proc import descendants, read_proc
from tests.proc import command_line, wait_until


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a child and, below that, another one."""
    script = 'sh -c "sleep 1000; true" & sleep 1000; true'
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as shell:
        # A shell waits for what it has forked to become another program, and does not stop before.
        assert wait_until(lambda: commands_below(shell.pid).count("sleep 1000") == 2)
        assert len(commands_below(shell.pid)) == 3
        yield shell
        os.killpg(shell.pid, signal.SIGKILL)


def commands_below(pid: int) -> list[str]:
    return [command_line(child.pid) for child in descendants(pid)]


def states_below(pid: int) -> list[bytes]:
    return [read_proc(f"/proc/{child.pid}/stat").split()[2] for child in descendants(pid)]


def test_descendants_are_found_parents_first(family: subprocess.Popen[bytes]) -> None:
    found = list(descendants(family.pid))
    seen = {family.pid}
    for child in found:
        assert child.parent_pid in seen
        seen.add(child.pid)
    assert list(descendants(found[-1].pid)) == []


def test_all_of_them_are_signalled_and_known(family: subprocess.Popen[bytes]) -> None:
    pidfd = os.pidfd_open(family.pid)
    found = signal_descendants(family.pid, pidfd, signal.SIGSTOP)
    try:
        assert len(found) == 3
        assert wait_until(lambda: states_below(family.pid) == [b"T"] * 3)
        assert family.poll() is None
        assert signal_descendants(family.pid, pidfd, signal.SIGCONT, keep=False) == []
    finally:
        for each in (pidfd, *found):
            os.close(each)


def test_nobody_is_signalled_below_a_pid_that_is_not_the_process_meant(
    family: subprocess.Popen[bytes],
) -> None:
    """As when that is dead, and its pid was given to another one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pidfd = os.pidfd_open(dead.pid)
    try:
        assert signal_descendants(family.pid, pidfd, signal.SIGKILL) == []
        assert len(list(descendants(family.pid))) == 3
    finally:
        os.close(pidfd)


def test_of_a_process_that_is_gone_nothing_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    assert list(descendants(dead.pid)) == []
    with pytest.raises(FileNotFoundError):
        read_proc(f"/proc/{dead.pid}/statm")


def test_a_long_file_is_read_whole() -> None:
    assert read_proc("/proc/self/smaps").count(b"Rss:") > 20
