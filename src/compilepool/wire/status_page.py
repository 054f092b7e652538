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
from collections.abc import Sequence

from compilepool.light_typing import NamedTuple

_TEXT_SIZE = 102  # bytes; a longer name of a phase is cut
# job, since; the fields of UsedBefore; phase_since, length and text of the phase
_STATUS = struct.Struct(f"<QddQQQdH{_TEXT_SIZE}s")
_PHASE = struct.Struct(f"<dH{_TEXT_SIZE}s")
_JOB = struct.Struct("<Q")
_PHASE_AT = _STATUS.size - _PHASE.size
LONG_TEARDOWN_S = 0.002
"""A worker sends TORN_DOWN if it has taken longer to tear down what a job has left."""
_ENDED = struct.Struct("<d")
_ENDED_AT = _STATUS.size
MAX_LEFT = 64
"""How many threads and processes, left by earlier jobs, a page has room for."""
_LEFT = struct.Struct(f"<HH{MAX_LEFT}I")  # number of threads, of processes, and their ids
_LEFT_AT = _ENDED_AT + _ENDED.size
_SIZE = _LEFT_AT + _LEFT.size


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
        ended: the time from which on the worker tears down what the job has left: its arguments and
            its result; 0 if it does not. The RESULT was sent before.
        threads: the ids of threads that earlier jobs have left, and that lived when the job began.
        processes: the PIDs of the worker's children that earlier jobs have left.
    """

    job: int
    since: float
    before: UsedBefore
    phase: str
    phase_since: float
    ended: float = 0.0
    threads: tuple[int, ...] = ()
    processes: tuple[int, ...] = ()

    @property
    def is_tearing_down(self) -> bool:
        """Whether the worker has torn down for so long that TORN_DOWN, or its death, will come."""
        return bool(self.ended) and time.monotonic() - self.ended > 2 * LONG_TEARDOWN_S


class StatusPage:
    """The worker's side of the page. Children that a job forks may write to it while the job runs.

    Args:
        fd: the descriptor that `make_status` returned. It may be closed afterwards.

    Attributes:
        ended: one element: the time at which the RESULT was sent; 0 once all of the job is torn
            down.
    """

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, _SIZE)
        self.ended = memoryview(self._page)[_ENDED_AT : _ENDED_AT + _ENDED.size].cast("d")
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

    def set_left(self, threads: Sequence[int], processes: Sequence[int]) -> None:
        """Record the threads and the children that jobs have left, before the next job begins."""
        threads = threads[:MAX_LEFT]
        processes = processes[: MAX_LEFT - len(threads)]
        ids = [*threads, *processes]
        ids += [0] * (MAX_LEFT - len(ids))
        _LEFT.pack_into(self._page, _LEFT_AT, len(threads), len(processes), *ids)

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
    os.ftruncate(fd, _SIZE)
    return fd


def read_status(fd: int) -> Status:
    """The status that a worker has written. Never raises, whatever was written."""
    data = b""
    # A page that is being written reads the same twice only when the write is complete. (Its writer
    # may be dead, so give up after three times.)
    for _ in range(3):
        before, data = data, os.pread(fd, _SIZE, 0).ljust(_SIZE, b"\0")
        if data == before:
            break
    job, since, cpu_s, *memory, phase_since, length, text = _STATUS.unpack_from(data)
    phase = text[:length].decode(errors="ignore")  # the last character may be cut
    used = UsedBefore(_finite(cpu_s), *memory)
    (ended,) = _ENDED.unpack_from(data, _ENDED_AT)
    thread_count, process_count, *ids = _LEFT.unpack_from(data, _LEFT_AT)
    threads = tuple(ids[:thread_count])
    processes = tuple(ids[thread_count : thread_count + process_count])
    times = _finite(since), _finite(phase_since), _finite(ended)
    return Status(job, times[0], used, phase, *times[1:], threads, processes)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
