"""Jobs of programs that share a pool."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from pathlib import Path

from tests.proc import wait_until

LONG_S = 300
"""No test takes longer."""


def where() -> list[int]:
    """The pids of this worker and of its parent, the fork server."""
    return [os.getpid(), os.getppid()]


def variable(name: str) -> str | None:
    """An environment variable of the worker."""
    return os.environ.get(name)


def temporary_folder() -> str:
    """Where this job puts its temporary files."""
    return tempfile.gettempdir()


def set_cache_folder() -> str:
    """Where Triton has its cache. This sets it if it is not set, as torch does."""
    return os.environ.setdefault("TRITON_CACHE_DIR", "set by a job")


def append(path: str, text: str = "x") -> str:
    """Write a line to a file, which shows how often this runs."""
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


def lines(path: str) -> int:
    """How many lines a file has."""
    return Path(path).read_text().count("\n")


def append_and_wait(path: str, go: str) -> int:
    """As `append`; then wait until a file exists."""
    append(path, str(os.getpid()))
    wait_for(go)
    return os.getpid()


def wait_for(go: str) -> str:
    """Wait until a file exists."""
    assert wait_until(Path(go).exists, LONG_S)
    return go


def sleep(seconds: float) -> float:
    """Take some time."""
    time.sleep(seconds)
    return seconds


def crash() -> None:
    """Crash, really."""
    ctypes.string_at(0)


def fail(path: str) -> None:
    """Raise, and note how often."""
    append(path)
    raise ValueError(f"rank {os.environ.get('RANK')} fails")


def large(size: int) -> bytes:
    """A result that travels in a memfd."""
    return bytes([size % 251]) * size
