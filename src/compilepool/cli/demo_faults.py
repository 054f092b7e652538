"""The bad jobs of `compilepool demo`: each fails in its own way, and must fail alone."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import resource
from collections.abc import Callable
from typing import NoReturn


def segfault() -> NoReturn:
    """Crash as a faulty compiler pass does."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard_limit))  # nobody wants this one's core file
    ctypes.string_at(0)
    raise AssertionError("address 0 could be read")


def raise_error() -> NoReturn:
    """Fail as a compiler does that rejects its input.

    Raises:
        ValueError: always.
    """
    raise ValueError("bad job")


def exit_abruptly() -> NoReturn:
    """End the whole process, as a library does that calls `exit` on an error."""
    os._exit(3)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A bad job.

    Attributes:
        name: the job's name.
        run: its function.
        outcome: what it must end with, in the words of `demo_run.outcome_of`.
    """

    name: str
    run: Callable[[], NoReturn]
    outcome: str


FAULTS = (
    Fault("bad_job_segfaults", segfault, "crashed: SIGSEGV"),
    Fault("bad_job_raises", raise_error, "raised ValueError: bad job"),
    Fault("bad_job_exits", exit_abruptly, "exited with code 3"),
)
