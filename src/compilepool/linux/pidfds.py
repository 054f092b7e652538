"""Signals, waits for and kills processes by their pidfds, pidfd_open(2).

A signal through a pidfd never hits another process that was given the same pid. The module also
kills whole trees of processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

from compilepool.linux.polling import READABLE, poll
from compilepool.linux.proc import children, descendants, is_below

_DEBUGGER_PATIENCE_S = 1.0  # how long a debugger may keep a dead child from being reaped


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind `pidfd`. The signal never hits another process with the same pid.

    Returns:
        False if the process is gone or may not be signalled, or if the descriptor has been closed.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    return True


def pid_of(pidfd: int) -> int:
    """The PID of the process behind `pidfd`, from /proc/self/fdinfo, pidfd_open(2).

    Returns:
        -1 if the process is dead, or its PID namespace cannot be seen from here.
    """
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return -1
    pid = next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), -1)
    return pid or -1  # the kernel writes 0 for another namespace


def wait_dead(pidfd: int, timeout_s: float) -> bool:
    """Wait until the process behind `pidfd` is dead. It need not have been reaped.

    Returns:
        False if it is still alive after `timeout_s` seconds.
    """
    events = poll()
    events.register(pidfd, READABLE)
    return bool(events.poll(max(0.0, timeout_s) * 1000))


def reap(pidfd: int) -> int | None:
    """Reap the dead child behind `pidfd`.

    Returns:
        The exit code; the negated signal number if a signal killed the child; None if the child is
        not dead, or was reaped by someone else (a `waitpid(-1)`, an ignored SIGCHLD).
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def reap_with_peak(pidfd: int, pid: int) -> tuple[int | None, int]:
    """Reap a dead child, and tell its peak of memory.

    Args:
        pidfd: the child's pidfd.
        pid: the child's pid.

    Returns:
        The exit code as `reap` returns it, and the largest resident set that the child, or one of
        its reaped children, ever had, in bytes, getrusage(2).
    """
    try:
        # A child that a debugger traces can be dead, and still cannot be reaped until the debugger
        # lets go.
        deadline = time.monotonic() + _DEBUGGER_PATIENCE_S
        while os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return None, 0
            time.sleep(0.001)
        # Nobody has reaped it, so the PID is still that child's.
        _, status, usage = os.wait4(pid, 0)
    except OSError:
        return None, 0
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def kill_child(pid: int) -> None:
    """Kill (SIGKILL) a process if it is a child of this process that nobody has reaped."""
    if is_child(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_child(pid: int) -> bool:
    """Whether a process is a child of this process that nobody has reaped."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_below(pid: int, ancestor: int, ancestor_pidfd: int) -> None:
    """Kill (SIGKILL) a process if it is a descendant of `ancestor`, and `ancestor` is alive."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if is_really_below(pid, ancestor, ancestor_pidfd):
            send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def is_really_below(pid: int, ancestor: int, ancestor_pidfd: int) -> bool:
    """Whether a process is a descendant of another one, which is alive.

    The caller holds a pidfd of `pid`, so the kernel cannot give that pid to another process. The
    ancestor's pid is its own, too, if the ancestor is still alive after the search.
    """
    return is_below(pid, ancestor) and not wait_dead(ancestor_pidfd, 0)


def signal_descendants(pid: int, pidfd: int, number: int, *, keep: bool = True) -> list[int]:
    """Signal all descendants of a process. If the process is dead, nothing is signalled.

    Args:
        pid: the process's PID.
        pidfd: the process's pidfd, which shows that `pid` is still its own.
        number: the signal's number.
        keep: whether to return pidfds.

    Returns:
        The pidfds of the descendants that are still alive, for the caller to close; fewer if
        descriptors are scarce.
    """
    found = []
    for child, _ in descendants(pid):
        try:
            child_pidfd = os.pidfd_open(child)
        except OSError:
            continue
        is_signalled = is_really_below(child, pid, pidfd)
        is_signalled = is_signalled and send_signal(child_pidfd, number)
        if is_signalled and keep and not wait_dead(child_pidfd, 0):
            found.append(child_pidfd)
        else:
            os.close(child_pidfd)
    return found


def sweep(keep: Iterable[int] = (), patience_s: float = 5.0) -> list[int]:
    """Kill all descendants of this process, which is a subreaper, with few exceptions.

    It signals only children, whose pids cannot be recycled before this process reaps them. When a
    child dies, its own children become children of this process, and the next round kills them.

    Args:
        keep: the PIDs of the children that are spared, with all that is below them.
        patience_s: the seconds to wait for victims to die.

    Returns:
        The PIDs of the survivors: children that were still alive after `patience_s` seconds (in
        uninterruptible sleep), and children that may not be signalled (setuid programs).
    """
    spared = set(keep)
    survivors: list[int] = []
    deadline = time.monotonic() + patience_s
    while victims := [pid for pid in children() if pid not in spared]:
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                spared.add(pid)
                survivors.append(pid)
        for pid in victims:
            # One descriptor at a time, because there may be more victims than free descriptors.
            if pid not in spared and not _reap_child(pid, deadline - time.monotonic()):
                spared.add(pid)
                survivors.append(pid)
    return survivors


def _reap_child(pid: int, timeout_s: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        is_dead = wait_dead(pidfd, timeout_s)
        reap(pidfd)
        return is_dead
    finally:
        os.close(pidfd)
