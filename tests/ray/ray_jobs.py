"""Jobs of the tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path
from typing import NoReturn

from compilepool import report_phase
from tests.proc import wait_until

LONG_S = 300
"""No test takes longer."""


def compile_c(number: int) -> str:
    """Compile a function that returns a number, with the C compiler. Returns the assembly."""
    source = f"int f(void) {{ return {number}; }}"
    command = ["cc", "-S", "-O1", "-x", "c", "-", "-o", "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=True).stdout


def crash() -> NoReturn:
    """Read address 0."""
    print("about to crash", flush=True)
    ctypes.string_at(0)
    raise AssertionError


def hang() -> None:
    """Do not end."""
    report_phase("hanging")
    time.sleep(1000)


def eat() -> int:
    """Take memory without end."""
    eaten = []
    while True:
        eaten.append(bytearray(16 << 20))
        time.sleep(0.01)


def pid_of_worker(seconds: float = 0.0) -> int:
    """Who runs this?"""
    time.sleep(seconds)
    return os.getpid()


def note(path: str, text: str, seconds: float = 0.0) -> str:
    """Append a line to a file, in one write; take some time."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    time.sleep(seconds)
    return text


def with_child(path: str) -> None:
    """Have a child process, tell its PID, and hang."""
    child = subprocess.Popen(["sleep", "1000"])
    note(path, str(child.pid))
    time.sleep(1000)


def wait_for(path: str) -> str:
    """Wait for a file."""
    assert wait_until(Path(path).exists, LONG_S)
    return path


def fail(text: str) -> NoReturn:
    """Raise an exception of this module's own."""
    raise Failure(text)


class Failure(Exception):
    """What `fail` raises."""
