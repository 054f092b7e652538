"""What `/proc` tells of processes, proc(5): the one place that parses its files.

The pid of a process that nobody has reaped stays its own. Any other pid may belong to another
process by the time that its file is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from compilepool.light_typing import NamedTuple

_READ_SIZE = 4096
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_FORKED_NO_EXEC = 0x40  # PF_FORKNOEXEC, <linux/sched.h>


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


class Stat(NamedTuple):
    """A process or a thread, as its `stat` file has it.

    Attributes:
        name: of the program, at most 15 bytes.
        state: a letter: R running, S sleeping, D uninterruptible, T or t stopped, Z or X dead.
        parent_pid: the parent's pid.
        has_execed: whether it has run a program of its own since it was forked.
        cpu_s: its CPU time, in seconds.
        start_s: when it was started, in seconds since the machine was.
        arguments: the first and the last address of its command line; 0 where that is hidden.
    """

    name: str
    state: str
    parent_pid: int
    has_execed: bool
    cpu_s: float
    start_s: float
    arguments: tuple[int, int]


def stat(pid: int | str = "self", tid: int | None = None) -> Stat:
    """What the kernel tells of a process, or of one of its threads.

    Args:
        pid: the process.
        tid: the thread; None: the process as a whole.

    Raises:
        OSError: it is gone.
        ValueError: the file is not as proc(5) has it.
    """
    task = "" if tid is None else f"task/{tid}/"
    # The name may hold anything, parentheses included.
    head, _, tail = read_proc(f"/proc/{pid}/{task}stat").rpartition(b")")
    fields = tail.split()  # the first is (3) of proc(5)
    try:
        return Stat(
            name=head.partition(b"(")[2].decode(errors="replace"),
            state=fields[0].decode(),
            parent_pid=int(fields[1]),
            has_execed=not int(fields[6]) & _FORKED_NO_EXEC,
            cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
            start_s=int(fields[19]) * _TICK_S,
            arguments=(int(fields[45]), int(fields[46])),
        )
    except IndexError:
        raise ValueError(f"the stat file of process {pid} is cut") from None


def status_field(field: str, pid: int | str = "self", tid: int | None = None) -> str:
    """A field of the `status` file of a process or thread; empty if it is gone, or has none."""
    task = "" if tid is None else f"task/{tid}/"
    with contextlib.suppress(OSError):
        for line in read_proc(f"/proc/{pid}/{task}status").splitlines():
            name, _, value = line.partition(b":")
            if name == field.encode():
                return value.strip().decode(errors="replace")
    return ""


def has_signal(mask: str, number: int) -> bool:
    """Whether a signal is in a mask of the `status` file, such as SigCgt."""
    return bool(int(mask or "0", 16) >> (number - 1) & 1)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    return has_signal(status_field("SigCgt", pid), number)


class Statm(NamedTuple):
    """The memory of a process, in bytes: cheap to ask for.

    Attributes:
        mapped: all that it has mapped.
        resident: what of that is in memory.
        anonymous: what of that belongs to no file.
    """

    mapped: int
    resident: int
    anonymous: int


def parse_statm(data: bytes) -> Statm:
    """The content of a `statm` file. Raises ValueError or IndexError if it is none."""
    fields = data.split()
    resident = int(fields[1])
    return Statm(int(fields[0]) * _PAGE, resident * _PAGE, (resident - int(fields[2])) * _PAGE)


def statm(pid: int | str = "self") -> Statm:
    """The memory of a process. Raises OSError, ValueError or IndexError if it is gone."""
    return parse_statm(read_proc(f"/proc/{pid}/statm"))


def smaps_rollup(pid: int | str = "self") -> dict[str, int]:
    """Bytes by the names of `/proc/PID/smaps`. Slow: the kernel looks at each page.

    Raises:
        OSError: the process is gone, or may not be looked at.
        ValueError: it has no memory any more.
    """
    _, *lines = read_proc(f"/proc/{pid}/smaps_rollup").splitlines() or [b""]
    values = {}
    for line in lines:
        name, _, rest = line.partition(b":")
        values[name.decode()] = int(rest.split()[0]) * 1024
    if "Private_Dirty" not in values:
        raise ValueError(f"process {pid} has no memory")
    return values


def unwritten_file_mappings() -> list[tuple[int, int]]:
    """Where this process maps files read-only and has never written: start and end addresses.

    The loader writes to some mappings before it protects them: those are left out.

    Raises:
        OSError: the kernel does not tell.
    """
    found = []
    start = end = 0
    is_candidate = False
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == "Anonymous" and is_candidate and rest.split()[0] == "0":
                found.append((start, end))
            fields = line.split()
            if len(fields) >= 5 and "-" in fields[0] and not fields[0].endswith(":"):
                start, end = (int(number, 16) for number in fields[0].split("-"))
                # A path, not [vdso]: those are no files.
                is_file = len(fields) > 5 and fields[5].startswith("/")
                is_candidate = is_file and fields[1].startswith("r-")
    return found


def name_of(pid: int) -> str:
    """The name of a process's program, as `ps` shows it."""
    try:
        return read_proc(f"/proc/{pid}/comm").decode(errors="replace").strip()
    except OSError:
        return "a process that is gone"


def uptime_s() -> float:
    """For how long the machine has been up, in seconds."""
    return float(read_proc("/proc/uptime").split()[0])


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
        for child in sorted(children(parent)):
            if child not in seen:
                seen.add(child)
                todo.append(child)
                yield Descendant(child, parent)


def children(pid: int | str = "self") -> list[int]:
    """The pids of the children of all threads of a process; none if it is gone."""
    pids: list[int] = []
    for tid in threads(pid):
        with contextlib.suppress(OSError):
            pids += map(int, read_proc(f"/proc/{pid}/task/{tid}/children").split())
    return pids


def threads(pid: int | str = "self") -> list[int]:
    """The thread ids of a process; none if it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def is_below(pid: int, ancestor: int) -> bool:
    """Whether a process is the other one, or is below it."""
    while pid > 1 and pid != ancestor:
        try:
            pid = stat(pid).parent_pid
        except (OSError, ValueError):
            return False
    return pid == ancestor


def is_child_of_main_thread(parent_pid: int) -> bool:
    """Whether this process was forked by the main thread of `parent_pid`."""
    try:
        listed = read_proc(f"/proc/{parent_pid}/task/{parent_pid}/children")
    except OSError:
        return False
    return os.getpid() in map(int, listed.split())


def names_of_other_threads() -> list[str]:
    """The names of this process's threads but the main one.

    A thread that was given none has its process's name, and "" here.
    """
    names = []
    common = read_proc("/proc/self/comm")
    for tid in threads():
        if tid != os.getpid():
            with contextlib.suppress(OSError):
                name = read_proc(f"/proc/self/task/{tid}/comm")
                names.append("" if name == common else name.decode(errors="replace").strip())
    return names


def open_files() -> list[str]:
    """The targets of this process's open file descriptors, as `/proc/self/fd` shows them."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return targets
