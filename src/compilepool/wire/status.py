"""What a worker does just now, in memory that it shares with the supervisor.

Writing it takes no system call, so it is there for every job; and it survives the worker, so it
tells what a dead one was doing. A worker that is killed may die with a job that the kernel has just
handed to it, but that it has not begun: then the job is not to blame, and must run elsewhere.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from typing import NamedTuple

_TEXT_SIZE = 102
_STATUS = struct.Struct(f"<QddH{_TEXT_SIZE}s")  # job; since when; phase: since when, length, text
_PHASE = struct.Struct(f"<dH{_TEXT_SIZE}s")
_JOB = struct.Struct("<Q")
_PHASE_AT = _STATUS.size - _PHASE.size


class Status(NamedTuple):
    """What a worker does.

    Attributes:
        job: the number of the job that it has begun last; 0 if none.
        since: when that was, by `time.monotonic()`, which is the same in all processes.
        phase: what the job has called what it does; empty if nothing.
        phase_since: when it began to.
    """

    job: int
    since: float
    phase: str
    phase_since: float


class StatusPage:
    """The worker's side. Children that a job has forked write, too, for as long as that job runs.

    Args:
        fd: descriptor of what `make_status` has made; may be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _STATUS.size)
        self._job = 0

    def begin(self, job: int) -> None:
        """The job is about to run."""
        now = time.monotonic()
        self._job = job
        _STATUS.pack_into(self._page, 0, job, now, now, 0, b"")

    def set_phase(self, text: str) -> None:
        """The job enters a phase. In what an earlier job has left running, nothing happens."""
        if _JOB.unpack_from(self._page)[0] != self._job:
            return
        data = text.encode(errors="replace")[:_TEXT_SIZE]
        _PHASE.pack_into(self._page, _PHASE_AT, time.monotonic(), len(data), data)


def make_status() -> int:
    """A new memfd for the status of one worker."""
    fd = os.memfd_create("compilepool status", os.MFD_CLOEXEC)
    os.ftruncate(fd, _STATUS.size)
    return fd


def read_status(fd: int) -> Status:
    """The status that a worker has written. Never raises, whatever was written."""
    data = b""
    # What is being written just now reads the same twice when it is done. (Its writer may be dead.)
    for _ in range(3):
        before, data = data, os.pread(fd, _STATUS.size, 0).ljust(_STATUS.size, b"\0")
        if data == before:
            break
    job, since, phase_since, length, text = _STATUS.unpack(data)
    phase = text[:length].decode(errors="ignore")  # a character may have been cut
    return Status(job, _finite(since), phase, _finite(phase_since))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
