"""Reads and parses `/proc`, proc(5). No other module parses its files.

A process's PID stays its own until it has been reaped. Any other PID may belong to another process
by the time its file is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from compilepool.light_typing import NamedTuple

_READ_SIZE = 4096
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
_FORKED_NO_EXEC = 0x40  # PF_FORKNOEXEC, <linux/sched.h>


def read_proc(path: str) -> bytes:
    """Return the content of a file of `/proc`.

    It takes half the time of `open`, which matters for files that are read often.

    Raises:
        OSError: the process is gone, or may not be inspected.
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
    """The fields of a `stat` file that the pool needs. The file is that of a process or a thread.

    Attributes:
        name: the name of the program, at most 15 bytes.
        state: a letter: R running, S sleeping, D uninterruptible, T or t stopped, Z or X dead.
        parent_pid: the PID of the parent.
        has_execed: whether the process has called exec since it was forked.
        cpu_s: the CPU time of the process or thread, in seconds.
        waited_cpu_s: the CPU time of the children that the process has waited for, and of those
            that they have waited for, in seconds.
        start_s: the time from the start of the machine to the start of the process or thread, in
            seconds.
        arguments: the addresses of the beginning and the end of the command line; 0 where the
            kernel hides them.
    """

    name: str
    state: str
    parent_pid: int
    has_execed: bool
    cpu_s: float
    waited_cpu_s: float
    start_s: float
    arguments: tuple[int, int]


def stat(pid: int | str = "self", tid: int | None = None) -> Stat:
    """Read the `stat` file of a process, or of one of its threads.

    Args:
        pid: the process.
        tid: the thread; None for the process as a whole.

    Raises:
        OSError: the process or thread is gone.
        ValueError: the file does not have the format of proc(5).
    """
    # The name may contain any character, parentheses included.
    head, _, tail = read_proc(_path("stat", pid, tid)).rpartition(b")")
    fields = tail.split()  # the first is field (3) of proc(5)
    try:
        return Stat(
            name=head.partition(b"(")[2].decode(errors="replace"),
            state=fields[0].decode(),
            parent_pid=int(fields[1]),
            has_execed=not int(fields[6]) & _FORKED_NO_EXEC,
            cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
            waited_cpu_s=(int(fields[13]) + int(fields[14])) * _TICK_S,
            start_s=int(fields[19]) * _TICK_S,
            arguments=(int(fields[45]), int(fields[46])),
        )
    except IndexError:
        raise ValueError(f"the stat file of process {pid} is cut") from None


def status_field(field: str, pid: int | str = "self", tid: int | None = None) -> str:
    """The value of a field in the `status` file of a process or thread; empty if there is none."""
    with contextlib.suppress(OSError):
        for line in read_proc(_path("status", pid, tid)).splitlines():
            name, _, value = line.partition(b":")
            if name == field.encode():
                return value.strip().decode(errors="replace")
    return ""


def _path(name: str, pid: int | str, tid: int | None) -> str:
    return f"/proc/{pid}/{name}" if tid is None else f"/proc/{pid}/task/{tid}/{name}"


def has_signal(mask: str, number: int) -> bool:
    """Whether a signal is in a signal mask of a `status` file, such as SigCgt.

    Args:
        mask: the mask in hexadecimal; empty counts as no signal.
        number: the signal's number.
    """
    return bool(int(mask or "0", 16) >> (number - 1) & 1)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    return has_signal(status_field("SigCgt", pid), number)


class Statm(NamedTuple):
    """The memory of a process, in bytes, from `/proc/PID/statm`, which is cheap to read.

    Attributes:
        mapped: all memory that the process has mapped.
        resident: the part of `mapped` that is in memory.
        anonymous: the part of `resident` that belongs to no file.
    """

    mapped: int
    resident: int
    anonymous: int


def parse_statm(data: bytes) -> Statm:
    """Parse the content of a `statm` file.

    Raises:
        ValueError: a field is not a number.
        IndexError: there are too few fields.
    """
    fields = data.split()
    resident = int(fields[1])
    return Statm(int(fields[0]) * _PAGE, resident * _PAGE, (resident - int(fields[2])) * _PAGE)


def statm(pid: int | str = "self") -> Statm:
    """The memory of a process.

    Raises:
        OSError: the process is gone.
        ValueError: the file does not have the format of proc(5).
        IndexError: the file is empty, because the process is gone.
    """
    return parse_statm(read_proc(f"/proc/{pid}/statm"))


def smaps_rollup(pid: int | str = "self") -> dict[str, int]:
    """The fields of `/proc/PID/smaps_rollup` by name, in bytes.

    Reading it is slow, because the kernel visits every page.

    Raises:
        OSError: the process is gone, or may not be inspected.
        ValueError: the process has no memory any more.
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
    """This process's read-only mappings of files that it has never written to.

    The dynamic loader writes to some mappings before it makes them read-only. The result does not
    contain these.

    Returns:
        The start and the end address of each mapping.

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
                # A path begins with a slash. [vdso] and its like are not files.
                is_file = len(fields) > 5 and fields[5].startswith("/")
                is_candidate = is_file and fields[1].startswith("r-")
    return found


def pid_behind(pidfd: int) -> int:
    """The PID of the process behind a pidfd, as this process sees it.

    Returns:
        0 if the process is in another PID namespace, which this one does not see; -1 if it is dead.

    Raises:
        OSError, ValueError: the descriptor is no pidfd.
    """
    for line in read_proc(f"/proc/self/fdinfo/{pidfd}").splitlines():
        name, _, value = line.partition(b":")
        if name == b"Pid":
            return int(value)
    raise ValueError(f"descriptor {pidfd} is no pidfd")


def name_of(pid: int) -> str:
    """The name of a process's program, as `ps` shows it."""
    try:
        return read_proc(f"/proc/{pid}/comm").decode(errors="replace").strip()
    except OSError:
        return "a process that is gone"


def processes_named(name: str) -> list[int]:
    """The PIDs of this user's processes that `ps` shows under a name."""
    pids = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                is_own = os.stat(f"/proc/{entry}").st_uid == os.geteuid()
                if is_own and read_proc(f"/proc/{entry}/comm").strip() == name.encode():
                    pids.append(int(entry))
    return pids


def arguments_of(pid: int) -> list[str]:
    """The command line of a process, as it shows itself; empty if it is gone."""
    try:
        data = read_proc(f"/proc/{pid}/cmdline")
    except OSError:
        return []
    return [part.decode(errors="replace") for part in data.rstrip(b"\0").split(b"\0")]


def variable_of(pid: int, name: str) -> str:
    """A variable of the environment that a process was started with; empty if unknown."""
    mark = name.encode() + b"="
    with contextlib.suppress(OSError):
        for entry in read_proc(f"/proc/{pid}/environ").split(b"\0"):
            if entry.startswith(mark):
                return os.fsdecode(entry[len(mark) :])
    return ""


def boot_id() -> str:
    """What names this start of the machine: the same in all processes, random(4)."""
    return read_proc("/proc/sys/kernel/random/boot_id").decode().strip()


def uptime_s() -> float:
    """The seconds since the machine was started."""
    return float(read_proc("/proc/uptime").split()[0])


class Descendant(NamedTuple):
    """A process below another one.

    Attributes:
        pid: the process's PID.
        parent_pid: the PID of its parent.
    """

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
    """The PIDs of the children of all threads of a process; none if it is gone."""
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
    """Whether a process is `ancestor`, or a descendant of it."""
    while pid > 1 and pid != ancestor:
        try:
            pid = stat(pid).parent_pid
        except (OSError, ValueError):
            return False
    return pid == ancestor


def is_child_of_main_thread(parent_pid: int) -> bool:
    """Whether the main thread of `parent_pid` forked this process."""
    try:
        listed = read_proc(f"/proc/{parent_pid}/task/{parent_pid}/children")
    except OSError:
        return False
    return os.getpid() in map(int, listed.split())


def names_of_other_threads() -> list[str]:
    """The names of all threads of this process except the main thread.

    A thread that was given no name has that of its process. Its name is "" in the result.
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
    """The targets of this process's open descriptors, as `/proc/self/fd` shows them."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return targets
