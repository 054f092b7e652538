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

from compilepool.light_typing import NamedTuple

_TEXT_SIZE = 102
# job; since when; UsedBefore; phase: since when, length, text
_STATUS = struct.Struct(f"<QddQQQdH{_TEXT_SIZE}s")
_PHASE = struct.Struct(f"<dH{_TEXT_SIZE}s")
_JOB = struct.Struct("<Q")
_PHASE_AT = _STATUS.size - _PHASE.size


class UsedBefore(NamedTuple):
    """What a worker had used before a job.

    Attributes:
        cpu_s: the CPU time of itself and of its children that have been waited for, in seconds.
        resident: bytes of memory that it had resident.
        anonymous: those of them that are no file's.
        children_peak: the most that one of its children that have ended had resident.
    """

    cpu_s: float = 0.0
    resident: int = 0
    anonymous: int = 0
    children_peak: int = 0


NOTHING_USED = UsedBefore()


class Status(NamedTuple):
    """What a worker does.

    Attributes:
        job: the number of the job that it has begun last; 0 if none.
        since: when that was, by `time.monotonic()`, which is the same in all processes.
        before: what the worker had used when it began the job.
        phase: what the job has called what it does; empty if nothing.
        phase_since: when it began to.
    """

    job: int
    since: float
    before: UsedBefore
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

    def begin(self, job: int, before: UsedBefore = NOTHING_USED) -> float:
        """The job is about to run. Returns the time."""
        now = time.monotonic()
        self._job = job
        _STATUS.pack_into(self._page, 0, job, now, *before, now, 0, b"")
        return now

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
    job, since, cpu_s, *memory, phase_since, length, text = _STATUS.unpack(data)
    phase = text[:length].decode(errors="ignore")  # a character may have been cut
    used = UsedBefore(_finite(cpu_s), *memory)
    return Status(job, _finite(since), used, phase, _finite(phase_since))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
