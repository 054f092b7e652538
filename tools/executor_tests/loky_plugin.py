"""A pytest plugin for loky's tests: what their helpers find out in ways that fit loky alone."""

from __future__ import annotations

import importlib
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tools.executor_tests.loky_executor import ProcessPoolExecutor
from tools.executor_tests.workers import worker_processes


class FileEvent:
    """An event between processes that goes through pickle: a file that is there or not."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="event-")) / "set"

    def set(self) -> None:
        """Wake all that wait."""
        self.path.touch()

    def clear(self) -> None:
        """Let later calls of `wait` wait."""
        self.path.unlink(missing_ok=True)

    def is_set(self) -> bool:
        """Whether `wait` would return at once."""
        return self.path.exists()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; False after `timeout`, in seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def pytest_configure() -> None:
    """Replace three helpers before the tests import them."""
    utils: Any = importlib.import_module("tests.utils")
    mixin: Any = importlib.import_module("tests._executor_mixin")

    def exit_in_our_words(match: str) -> str:
        return re.sub(r"EXIT\\\((\d+)\\\)", r"exit(ed)? (code|with code|status) \1", match)

    def setup_class(cls: type) -> None:
        mixin._test_event = FileEvent()

    def running_workers(process: psutil.Process) -> list[tuple[int, str]]:
        return [(worker.pid, "compilepool worker") for worker in worker_processes(process.pid)]

    utils.filter_match = exit_in_our_words
    mixin._running_children_pids_with_cmdline = running_workers
    mixin.ExecutorMixin.setup_class = classmethod(setup_class)


def pytest_runtest_logfinish() -> None:
    """End the pools that the locals of a failed test keep: the next test counts processes."""
    for pool in list(ProcessPoolExecutor.living):
        pool.shutdown(kill_workers=True)
