"""The inspected process, as `/proc` shows it, proc(5)."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from compilepool.inspector.registers import Registers
from compilepool.linux import pidfds, proc
from compilepool.wire.native_report import MAX_TEXT, ChildProcess

DEAD = ("Z", "X")
"""The state letters of a thread that has ended."""

_SYSCALL_REGISTERS = ("rdi", "rsi", "rdx", "r10", "r8", "r9", "rsp", "rip")  # syscall(2), proc(5)


class Mapping(NamedTuple):
    """One mapping of the process's memory.

    Attributes:
        start: the first address.
        end: the address after the last.
        is_executable: whether it holds code.
        name: the name of its file without the folder, or the kernel's name for it.
        base: the first address of all mappings of that file.
    """

    start: int
    end: int
    is_executable: bool
    name: str
    base: int


class SystemCall(NamedTuple):
    """The system call that a thread waits in.

    Attributes:
        number: the number of the call.
        registers: the registers that are known without ptrace: the call's arguments, pc and stack
            pointer.
    """

    number: int
    registers: Registers


class Maps:
    """The mappings of a process at the time they were read.

    Args:
        text: the content of `/proc/PID/maps`.
    """

    def __init__(self, text: str) -> None:
        self._mappings: list[Mapping] = []
        self._code_files: set[str] = set()
        bases: dict[str, int] = {}
        for line in text.splitlines():
            fields = line.split(maxsplit=5)
            start, end = (int(number, 16) for number in fields[0].split("-"))
            path = fields[5] if len(fields) > 5 else ""
            base = bases.setdefault(path, start) if path else start
            name = os.path.basename(path) or "anonymous memory"
            self._mappings.append(Mapping(start, end, "x" in fields[1], name, base))
            if "x" in fields[1] and path.startswith("/"):
                self._code_files.add(path)
        self._starts = [mapping.start for mapping in self._mappings]

    def at(self, address: int) -> Mapping | None:
        """The mapping that contains `address`; None if there is none."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._mappings[index].end:
            return None
        return self._mappings[index]

    def bytes_of_code_files(self) -> int:
        """The total size in bytes of all files that have code in the process and still exist."""
        total = 0
        for path in self._code_files:
            with contextlib.suppress(OSError):
                total += os.stat(path).st_size
        return total

    def code_at(self, address: int) -> Mapping | None:
        """The mapping that contains `address`, if it holds code; else None."""
        mapping = self.at(address)
        return mapping if mapping and mapping.is_executable else None


class Target:
    """The inspected process. The pidfd shows whether its PID is still its own.

    Args:
        pid: the PID of the process.
        pidfd: the pidfd of the process.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._memory: int | None = None

    def is_alive(self) -> bool:
        """Whether the process runs or is parked. Its PID is then still its own."""
        return not pidfds.wait_dead(self.pidfd, 0.0)

    def tids(self) -> list[int]:
        """The ids of its threads, the main thread first."""
        return sorted(proc.threads(self.pid), key=lambda tid: (tid != self.pid, tid))

    def name(self, tid: int) -> str:
        """The name of a thread; empty if the thread is gone."""
        with contextlib.suppress(OSError):
            return self._read(f"task/{tid}/comm").rstrip("\n")
        return ""

    def state(self, tid: int) -> str:
        """The letter of a thread's state; X if the thread is gone."""
        with contextlib.suppress(OSError, ValueError):
            return proc.stat(self.pid, tid).state
        return "X"

    def status(self, tid: int, field: str) -> str:
        """A field of a thread's `status` file; empty if the thread is gone or has no such field."""
        return proc.status_field(field, self.pid, tid)

    def system_call(self, tid: int) -> SystemCall | None:
        """The system call that a thread waits in.

        Returns:
            None if the thread runs, or is gone.

        Raises:
            PermissionError: this process may not read the thread's state.
        """
        try:
            fields = self._read(f"task/{tid}/syscall").split()
        except PermissionError:
            raise
        except OSError:
            return None
        if len(fields) != 1 + len(_SYSCALL_REGISTERS):
            return None
        values = [int(field, 16) for field in fields[1:]]
        named = dict(zip(_SYSCALL_REGISTERS, values, strict=True))
        return SystemCall(int(fields[0]), Registers.by_name(named))

    def maps(self) -> Maps:
        """The current mappings of the process.

        Raises:
            OSError: they cannot be read.
        """
        return Maps(self._read("maps"))

    def open_memory(self) -> None:
        """Open the memory of the process for `read`.

        The descriptor stays that of this process's memory, even if another process gets its PID.

        Raises:
            OSError: the memory may not be read, or the process is dead.
        """
        memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        if not self.is_alive():
            os.close(memory)
            raise ProcessLookupError(f"process {self.pid} is dead")
        self._memory = memory

    def read(self, address: int, size: int) -> bytes:
        """Read memory of the process.

        Returns:
            The `size` bytes from `address` on; fewer if fewer are mapped.
        """
        if self._memory is None or not 0 <= address < 1 << 63:
            return b""
        try:
            return os.pread(self._memory, size, address)
        except OSError:
            return b""

    def _read(self, name: str) -> str:
        with open(f"/proc/{self.pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()


MAX_CHILDREN = 256
"""The most descendants in a report."""


def processes_below(pid: int) -> Iterator[ChildProcess]:
    """The descendants of a process, parents before their children, at most `MAX_CHILDREN`."""
    for child, _ in itertools.islice(proc.descendants(pid), MAX_CHILDREN):
        with contextlib.suppress(OSError, ValueError):
            yield _child(child)


def _child(pid: int) -> ChildProcess:
    stat = proc.stat(pid)
    command = proc.read_proc(f"/proc/{pid}/cmdline")[: 4 * MAX_TEXT].replace(b"\0", b" ").strip()
    return ChildProcess(
        pid=pid,
        parent_pid=stat.parent_pid,
        command=(command.decode(errors="replace") or f"[{stat.name}]")[:MAX_TEXT],
        age_s=round(max(0.0, proc.uptime_s() - stat.start_s), 2),
        state=stat.state,
        cpu_s=stat.cpu_s,
    )
