"""Jobs that the figures submit, and ways to wait for them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

WAIT_S = 60.0
"""The longest time that anybody waits for a result, and that a job waits, in seconds."""


def noop() -> None:
    """Do nothing."""


def crash() -> None:
    """Segfault."""
    ctypes.string_at(0)


def sleep_in_child(folder: str) -> None:
    """Run a child process below the worker, and say so by a file in the folder."""
    with subprocess.Popen(["sleep", str(WAIT_S)]):
        Path(folder, str(os.getpid())).touch()


def meet(folder: str, count: int) -> int:
    """Wait until `count` workers run this job at the same time. Returns the worker's pid."""
    Path(folder, str(os.getpid())).touch()
    wait_for_files(folder, count)
    return os.getpid()


def wait_for_files(folder: str, count: int) -> None:
    """Wait until the folder has `count` files.

    Raises:
        TimeoutError: it has fewer after `WAIT_S`.
    """
    deadline = time.monotonic() + WAIT_S
    while len(os.listdir(folder)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(os.listdir(folder))} of {count} came")
        time.sleep(0.001 if count < 8 else 0.02)


def all_answer(pool: Any, workers: int) -> None:
    """Wait until every worker of a pool runs a job, all at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        futures = [pool.submit(meet, folder, workers) for _ in range(workers)]
        for future in futures:
            future.result(WAIT_S)
