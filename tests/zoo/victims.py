"""Processes that crash or hang, and inspectors that look at them, as the supervisor starts them."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compilepool.client.connection.configuration import find_libdw
from compilepool.linux.spawn import process_command, spawn
from compilepool.wire.native_report import NativeReport, ThreadStack
from tests.zoo import Where

ROOT = Path(__file__).parent.parent.parent
SLEEPING = {"35", "219", "230"}  # nanosleep, restart_syscall, clock_nanosleep: <asm/unistd_64.h>
NO_PTRACE = (sys.executable, str(Path(__file__).with_name("no_ptrace.py")))
"""Put before a command, that may not use ptrace."""


def has_libdw() -> bool:
    try:
        ctypes.CDLL(find_libdw())
    except OSError:
        return False
    return True


NEEDS = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="native stacks need x86-64"),
    pytest.mark.skipif(not shutil.which("g++"), reason="the zoo needs g++"),
    pytest.mark.skipif(not has_libdw(), reason="native stacks need libdw: pip install pystack"),
]
"""What native stacks need: marks for the tests of a module."""


@dataclasses.dataclass(frozen=True)
class Victim:
    """A process to look at: what it writes to the descriptor `out` is read from `output`."""

    process: subprocess.Popen[bytes]
    pidfd: int
    output: int

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def hear(self) -> bytes:
        """What it says next."""
        return os.read(self.output, 64 * 1024)

    def tell(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def task(self, tid: int, file: str) -> str:
        """A file of a thread's in `/proc`."""
        return Path(f"/proc/{self.pid}/task/{tid}/{file}").read_text()

    def sleepers(self) -> int:
        """How many threads sleep, or are parked."""
        tids = map(int, os.listdir(f"/proc/{self.pid}/task"))
        return sum(self.task(tid, "syscall").split()[0] in SLEEPING for tid in tids)

    def state(self) -> str:
        """The letter of the main thread's state, proc(5)."""
        return self.task(self.pid, "stat").rpartition(")")[2].split()[0]


@contextlib.contextmanager
def victim(code: str) -> Iterator[Victim]:
    """Run code that has `zoo`, `report_crashes` and the descriptor `out`."""
    read_end, write_end = os.pipe()
    head = (
        "import os, faulthandler, signal, subprocess, threading\n"
        "from tests import zoo\n"
        "from compilepool.worker.parking import report_crashes\n"
        f"out = {write_end}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", head + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[write_end],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        start_new_session=True,
    ) as process:
        os.close(write_end)
        pidfd = os.pidfd_open(process.pid)
        try:
            yield Victim(process, pidfd, read_end)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            os.close(pidfd)
            os.close(read_end)


@contextlib.contextmanager
def crashed(library: str, symbol: str, where: Where = Where.MAIN_THREAD) -> Iterator[Victim]:
    """A process that has begun to tell of its crash."""
    with victim(
        f"report_crashes(out, park=True); zoo.call({library!r}, {symbol!r}, zoo.{where})"
    ) as process:
        assert process.hear()
        yield process


@contextlib.contextmanager
def inspector(
    process: Victim, mode: str, dump_signal: int = 0, libdw: str | None = None, *wrapper: str
) -> Iterator[int]:
    """Start an inspector, as the supervisor does; gives the descriptor to read from."""
    arguments = [mode, process.pid, dump_signal, os.getpid(), find_libdw()]
    if libdw is not None:
        arguments[-1] = libdw
    command = process_command(["-I", "-S"], "compilepool.inspector.main")
    read_end, write_end = os.pipe()
    try:
        pid = spawn(
            [*wrapper, *command, *map(str, arguments)], os.environ, [write_end, process.pidfd]
        )
    finally:
        os.close(write_end)
    try:
        yield read_end
    finally:
        os.close(read_end)
        assert os.waitpid(pid, 0)[1] == 0


def inspect(
    process: Victim, mode: str, dump_signal: int = 0, libdw: str | None = None, *wrapper: str
) -> NativeReport:
    """Have an inspector look at a process."""
    with inspector(process, mode, dump_signal, libdw, *wrapper) as output:
        return read_report(output)


def read_report(output: int) -> NativeReport:
    """What an inspector writes until it ends."""
    data = b""
    while piece := os.read(output, 64 * 1024):
        data += piece
    return NativeReport.of_lines(data)


def functions(thread: ThreadStack) -> list[str]:
    """The names on a stack."""
    return [frame.function for frame in thread.frames]
