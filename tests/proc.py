"""What tests see of processes, from outside, by /proc."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE_S = 20.0
"""How long a test waits for what must happen: much longer than it ever takes."""


def wait_until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    """Wait until `condition` holds, for what nobody signals; False on timeout."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


_RESOURCE_TRACKER = "multiprocessing.resource_tracker"
"""multiprocessing starts it where it is first needed, and it stays; it is nothing of a pool's."""


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    pids: list[int] = []
    with contextlib.suppress(OSError):  # it may end meanwhile
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{task}/children").read_text()
                pids += [int(child) for child in text.split()]
    return [pid for pid in pids if _RESOURCE_TRACKER not in command_line(pid)]


def descendants(pid: int) -> list[int]:
    """The pids of all processes below one."""
    found = []
    todo = children(pid)
    while todo:
        child = todo.pop()
        found.append(child)
        todo += children(child)
    return found


def command_line(pid: int) -> str:
    """A process's command line, as `ps` shows it; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pool_process(kind: str, of: int | None = None) -> int:
    """The pid of the supervisor, fork server or a worker (`kind`) below a process."""
    return pool_processes(kind, of)[0]


def pool_processes(kind: str, of: int | None = None) -> list[int]:
    """The pids of all such processes."""
    below = descendants(os.getpid() if of is None else of)
    return [pid for pid in below if command_line(pid) == f"compilepool {kind}"]


def pids_with_environment(entry: str) -> list[int]:
    """The pids of live processes, this one excepted, that were started with `entry`."""
    wanted = entry.encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            try:
                entries = (directory / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in entries and is_alive(int(directory.name)):
                found.append(int(directory.name))
    return found


def all_dead(pids: Iterable[int]) -> bool:
    """Whether none of the processes is alive."""
    return not any(is_alive(pid) for pid in pids)


def signal_inspector_of(supervisor: int, number: int) -> None:
    """Signal the next inspector that a supervisor starts. It lives for some 40 ms."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for pid in children(supervisor):
            # Not before it is another program: until then, the supervisor waits for it.
            if "inspector" in command_line(pid):
                os.kill(pid, number)
                return
    raise AssertionError("no inspector was started")


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
