"""The processes below one, proc(5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from compilepool.wire import kernel
from compilepool.wire.light_typing import NamedTuple

_READ_SIZE = 4096


class Descendant(NamedTuple):
    """A process below another one."""

    pid: int
    parent_pid: int


def descendants(pid: int) -> Iterator[Descendant]:
    """The descendants of a process, parents before their children."""
    seen = {pid}
    todo = [pid]
    while todo:
        parent = todo.pop(0)
        for child in _children(parent):
            if child not in seen:
                seen.add(child)
                todo.append(child)
                yield Descendant(child, parent)


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
        is_signalled = kernel.is_really_below(child, pid, pidfd)
        is_signalled = is_signalled and kernel.send_signal(child_pidfd, number)
        if is_signalled and keep and not kernel.wait_dead(child_pidfd, 0):
            found.append(child_pidfd)
        else:
            os.close(child_pidfd)
    return found


def _children(pid: int) -> list[int]:
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                pids += map(int, read_proc(f"/proc/{pid}/task/{task}/children").split())
    return sorted(pids)


def read_proc(path: str) -> bytes:
    """The content of a file of `/proc`. Takes half the time of `open`, for what is read often.

    Raises:
        OSError: the process is gone, or may not be looked at.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = data = os.read(fd, _READ_SIZE)
        while data:
            data = os.read(fd, _READ_SIZE)
            content += data
        return content
    finally:
        os.close(fd)
