"""Traces as tests read them, and disks that are full."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tests.proc import wait_until

Event: TypeAlias = dict[str, Any]


def read(path: Path) -> list[Event]:
    """All events, as a single system call finds them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.read(fd, 1 << 24)
    finally:
        os.close(fd)
    events = json.loads(data)
    assert isinstance(events, list)
    return events


def read_meanwhile(path: Path) -> list[Event]:
    """Read what somebody writes just now: the kernel lets us see half of a write, for a moment."""
    events: list[Event] = []

    def is_whole() -> bool:
        try:
            events[:] = read(path)
        except ValueError:
            return False
        return True

    assert wait_until(is_whole)
    return events


def slices(events: list[Event], category: str = "job") -> list[Event]:
    return [event for event in events if event["ph"] == "X" and event["cat"] == category]


def counters(events: list[Event], name: str) -> list[dict[str, float]]:
    found = [event for event in events if event["ph"] == "C" and event["name"].startswith(name)]
    return [event["args"] for event in found]


def job_of(events: list[Event], name: str) -> Event:
    (found,) = [event for event in slices(events) if event["name"] == name]
    return found


def open_count(path: Path) -> int:
    """How often this process has a file open."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}") == str(path)
        except OSError:
            continue  # the listing's own
    return count


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond that does as much as it can, and the next one nothing, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
