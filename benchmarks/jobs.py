"""Jobs, and what is done with them in all figures."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

WAIT_S = 60.0
"""The bound of every wait for a result, and of every job that waits."""


def noop() -> None:
    """Nothing."""


def crash() -> None:
    """Segfault."""
    ctypes.string_at(0)


def sleep_in_child(folder: str) -> None:
    """Have a program running below the worker."""
    with subprocess.Popen(["sleep", str(WAIT_S)]):
        Path(folder, str(os.getpid())).touch()


def meet(folder: str, count: int) -> int:
    """Wait until `count` workers are in here at once."""
    Path(folder, str(os.getpid())).touch()
    wait_for_files(folder, count)
    return os.getpid()


def wait_for_files(folder: str, count: int) -> None:
    """Until there are as many; for WAIT_S, then it is an error."""
    deadline = time.monotonic() + WAIT_S
    while len(os.listdir(folder)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(os.listdir(folder))} of {count} came")
        time.sleep(0.001 if count < 8 else 0.02)


def all_answer(pool: Any, workers: int) -> None:
    """Until each worker of a pool has run a job, all at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        futures = [pool.submit(meet, folder, workers) for _ in range(workers)]
        for future in futures:
            future.result(WAIT_S)
