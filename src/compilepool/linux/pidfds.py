"""Processes by pidfd: signals that never hit a recycled pid, waits, and the end of whole trees."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable

from compilepool.linux.proc import children, descendants, is_below

_LET_GO_S = 1.0


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind `pidfd`. Never hits a recycled pid.

    Returns:
        False if it is gone, may not be signalled, or the descriptor was closed by somebody.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    return True


def wait_dead(pidfd: int, timeout_s: float) -> bool:
    """Wait until the process behind `pidfd` is dead (maybe not reaped); False on timeout."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def reap(pidfd: int) -> int | None:
    """Reap the dead child behind `pidfd`.

    Returns its exit code, negated signal number if a signal killed it, or None if it is not dead
    or somebody else (a `waitpid(-1)`, an ignored SIGCHLD) reaped it.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def reap_with_peak(pidfd: int, pid: int) -> tuple[int | None, int]:
    """As `reap`; and the most memory that the child, or one of its own, had resident.

    Args:
        pidfd: of the child.
        pid: of the same child.

    Returns:
        Exit code, and bytes, getrusage(2).
    """
    try:
        # One that a debugger holds is dead, and cannot be reaped until that lets go.
        deadline = time.monotonic() + _LET_GO_S
        while os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return None, 0
            time.sleep(0.001)
        _, status, usage = os.wait4(pid, 0)  # nobody else has reaped it, so it is that child
    except OSError:
        return None, 0
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def kill_child(pid: int) -> None:
    """Kill (SIGKILL) a process if it is a child of this one that nobody has reaped."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises if it is not
        os.kill(pid, signal.SIGKILL)


def kill_below(pid: int, ancestor: int, ancestor_pidfd: int) -> None:
    """Kill (SIGKILL) a process if it is below another one, which is alive."""
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
    """Whether a process is below another one.

    To be asked when there is a pidfd of `pid`, so that it cannot become another process's. If the
    ancestor is alive afterwards, that holds for its pid as well.
    """
    return is_below(pid, ancestor) and not wait_dead(ancestor_pidfd, 0)


def signal_descendants(pid: int, pidfd: int, number: int, *, keep: bool = True) -> list[int]:
    """Signal all processes below one. If that is dead, nobody is signalled.

    Args:
        pid: the one.
        pidfd: its pidfd: it tells that the pid has not become another process's.
        number: the signal's.
        keep: whether to return anything.

    Returns:
        The pidfds of those that live, for the caller to close; fewer if descriptors are scarce.
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
    """Kill all descendants of this subreaper but the children in `keep` and what is below them.

    Only children are signalled: their pids cannot be recycled before this process reaps them. What
    they leave is reparented here when they die, and goes in the next round.

    Returns:
        The pids of those that are still alive: after `patience_s` seconds (in uninterruptible
        sleep), or because they may not be signalled (setuid programs).
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
            # One descriptor at a time: there may be more victims than descriptors left.
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
