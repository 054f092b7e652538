"""How tests run a client program: start it, talk with it by lines, watch what is below it die."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from tests.proc import PATIENCE_S, descendants

HERE = Path(__file__).parent


class Program:
    """A running program of this directory. It ends, by SIGKILL if need be, with the `with` block.

    Args:
        script: the name of its file.
        arguments: what it gets on its command line.
        is_in_terminal: its standard streams are a terminal, which it has to make its controlling
            one by itself (`TIOCSCTTY`), and all that it and others write is read as its stdout.
    """

    def __init__(self, script: str, *arguments: str, is_in_terminal: bool = False) -> None:
        # multiprocessing's resource tracker may warn when its program is killed.
        quiet = ("-W", "ignore:resource_tracker")
        command = [sys.executable, *quiet, str(HERE / script), *arguments]
        self._received = b""
        self._stderr = -1
        if is_in_terminal:
            self._stdout, slave = pty.openpty()
            self._stdin = os.dup(self._stdout)
            self._process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
            )
            os.close(slave)
        else:
            theirs, self._stdin = os.pipe()
            self._stdout, stdout = os.pipe()
            self._stderr, stderr = os.pipe()
            self._process = subprocess.Popen(command, stdin=theirs, stdout=stdout, stderr=stderr)
            for fd in (theirs, stdout, stderr):
                os.close(fd)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        for fd in (self._stdin, self._stdout, self._stderr):
            if fd >= 0:
                os.close(fd)

    def write(self, text: str) -> None:
        """Send a line, or the single character of a key pressed in its terminal."""
        os.write(self._stdin, text.encode())

    def read_line(self) -> str:
        """The next line on its stdout, from it or from any process that it has started."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._received:
            data = _read(self._stdout, deadline)
            assert data, f"no line but {self._received!r} and end of file; stderr: {self.stderr()}"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode().rstrip("\r")

    def ask(self, command: str) -> str:
        """Send a line and return the next one that it writes."""
        self.write(f"{command}\n")
        return self.read_line()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        return self._process.wait(PATIENCE_S)

    def rest(self) -> str:
        """All of its stdout that was not read, until no process has that open any more."""
        deadline = time.monotonic() + PATIENCE_S
        while data := _read(self._stdout, deadline):
            self._received += data
        rest, self._received = self._received, b""
        return rest.decode()

    def stderr(self) -> str:
        """All of its stderr, until no process has that open any more."""
        deadline = time.monotonic() + PATIENCE_S
        text = b""
        while self._stderr >= 0 and (data := _read(self._stderr, deadline)):
            text += data
        return text.decode()


def run_code(
    code: str, *arguments: str, flags: Sequence[str] = (), timeout_s: float = 3 * PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and return its output.

    Args:
        code: the program.
        arguments: what it gets on its command line.
        flags: the interpreter's flags.
        timeout_s: how long it may take, in seconds.
    """
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


class Doomed:
    """Processes that shall die, with pidfds so that no later owner of their pids is meant."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds: dict[int, int] = {}
        self._identities: dict[int, str] = {}
        for pid in pids:
            self._pidfds[pid] = os.pidfd_open(pid)
            self._identities[pid] = start_time(pid)
        self.pids = list(self._pidfds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pidfd in self._pidfds.values():
            os.close(pidfd)

    def __len__(self) -> int:
        return len(self.pids)

    def wait(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until all of them are dead; False on timeout."""
        poll = select.poll()
        for pidfd in self._pidfds.values():
            poll.register(pidfd, select.POLLIN)
        left = len(self._pidfds)
        deadline = time.monotonic() + timeout_s
        while left:
            dead = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not dead:
                return False
            for pidfd, _ in dead:
                poll.unregister(pidfd)
                left -= 1
        return True

    def alive(self) -> list[int]:
        """Those that `/proc` shows alive: same pid, same start time, not a zombie."""
        return [pid for pid in self.pids if is_same_and_alive(pid, self._identities[pid])]

    def kill(self) -> None:
        """Send SIGKILL to all of them, in order."""
        for pidfd in self._pidfds.values():
            # The death of one may have ended the next already.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def start_time(pid: int) -> str:
    """When a process started, which tells it from others that had its pid; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_same_and_alive(pid: int, started: str) -> bool:
    """Whether the process with this pid and start time exists, and is no zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and fields[19] == started


def family_of(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *descendants(pid)]


def _read(fd: int, deadline: float) -> bytes:
    """What there is to read until `deadline`; empty at the end of file."""
    ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise TimeoutError("some process that should be dead keeps the program's output open")
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""
