"""What a worker is doing, in a page of memory that it shares with the supervisor.

Writing to it takes no system call, so every job is recorded. The page outlives the worker, so it
tells what a dead worker was doing. A killed worker may die with a job that the kernel has already
delivered to it but that it has not begun. The page shows that the job is not to blame and must run
elsewhere.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time

from compilepool.light_typing import NamedTuple

_TEXT_SIZE = 102  # bytes; a longer name of a phase is cut
# job, since; the fields of UsedBefore; phase_since, length and text of the phase
_STATUS = struct.Struct(f"<QddQQQdH{_TEXT_SIZE}s")
_PHASE = struct.Struct(f"<dH{_TEXT_SIZE}s")
_JOB = struct.Struct("<Q")
_PHASE_AT = _STATUS.size - _PHASE.size


class UsedBefore(NamedTuple):
    """What a worker had used before it began a job.

    Attributes:
        cpu_s: the CPU time of the worker and of its children that have been waited for, in seconds.
        resident: the bytes of its resident memory.
        anonymous: the part of these bytes that belongs to no file.
        children_peak: the largest resident set that one of its ended children had, in bytes.
    """

    cpu_s: float = 0.0
    resident: int = 0
    anonymous: int = 0
    children_peak: int = 0


NOTHING_USED = UsedBefore()


class Status(NamedTuple):
    """What a worker is doing.

    Attributes:
        job: the id of the JOB that it began last, which is a run's id; 0 if none.
        since: the time at which it began the job, by `time.monotonic()`, which is the same in all
            processes.
        before: what the worker had used when it began the job.
        phase: the phase that the job has reported last; empty if none.
        phase_since: the time at which that phase began; the start of the job if there is none.
    """

    job: int
    since: float
    before: UsedBefore
    phase: str
    phase_since: float


class StatusPage:
    """The worker's side of the page. Children that a job forks may write to it while the job runs.

    Args:
        fd: the descriptor that `make_status` returned. It may be closed afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _STATUS.size)
        self._job = 0

    def begin(self, job: int, before: UsedBefore = NOTHING_USED) -> float:
        """Record that a job is about to run.

        Returns:
            The time that was recorded, by `time.monotonic()`.
        """
        now = time.monotonic()
        self._job = job
        _STATUS.pack_into(self._page, 0, job, now, *before, now, 0, b"")
        return now

    def set_phase(self, text: str) -> None:
        """Record that the job enters a phase.

        Does nothing in a process that an earlier job left running.
        """
        if _JOB.unpack_from(self._page)[0] != self._job:
            return
        data = text.encode(errors="replace")[:_TEXT_SIZE]
        _PHASE.pack_into(self._page, _PHASE_AT, time.monotonic(), len(data), data)


def make_status() -> int:
    """Create the memfd for the status page of one worker.

    Raises:
        OSError: there is no memory or no descriptor.
    """
    fd = os.memfd_create("compilepool status", os.MFD_CLOEXEC)
    os.ftruncate(fd, _STATUS.size)
    return fd


def read_status(fd: int) -> Status:
    """The status that a worker has written. Never raises, whatever was written."""
    data = b""
    # A page that is being written reads the same twice only when the write is complete. (Its writer
    # may be dead, so give up after three times.)
    for _ in range(3):
        before, data = data, os.pread(fd, _STATUS.size, 0).ljust(_STATUS.size, b"\0")
        if data == before:
            break
    job, since, cpu_s, *memory, phase_since, length, text = _STATUS.unpack(data)
    phase = text[:length].decode(errors="ignore")  # the last character may be cut
    used = UsedBefore(_finite(cpu_s), *memory)
    return Status(job, _finite(since), used, phase, _finite(phase_since))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
