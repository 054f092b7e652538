"""The fast tier: nothing here starts a process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

STARTS = ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen")
started: list[str] = []


def note(event: str, _: object) -> None:
    if event in STARTS:
        started.append(event)


sys.addaudithook(note)  # nothing can remove it


@pytest.fixture(autouse=True)
def starts_no_process() -> Iterator[None]:
    """Fails a test that belongs to tests/processes."""
    started.clear()
    yield
    assert not started, "tests/logic starts no process; tests/processes does"
