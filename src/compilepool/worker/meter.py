"""Measures the CPU time and memory of a worker's jobs.

Processes that a job starts count if the job waits for them.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time

from compilepool.linux import proc
from compilepool.wire.status_page import UsedBefore

_STATM_SIZE = 256  # bytes; more than /proc/PID/statm has
SHORT_S = 0.0005
"""In this time, a job can change its memory only negligibly, and hardly start a process."""

_RECENT_S = 0.005  # in this time, processes that jobs have left running can change little
_LOOK_EVERY = 20  # jobs; after as many, private memory is read even if it can hardly have grown
_NEGLIGIBLE = 1 << 20  # bytes
_RESET_PEAK = b"5"  # for /proc/PID/clear_refs, proc(5)


class Meter:
    """Reads the kernel's counters at the start and at the end of each job.

    It reads getrusage(2) and proc(5). A short job costs two system calls. The job after a longer
    one costs a few more.

    Raises:
        OSError: there are no descriptors left.
    """

    def __init__(self) -> None:
        self._statm_fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._own_cpu_s = self._children_cpu_s = 0.0
        self._peak = self._highest_peak = self._children_peak = 0
        self._resident = self._anonymous = 0
        self._shared = self._jobs_since_look = 0
        self._may_have_changed = True
        self._read_counters()

    def begin(self) -> UsedBefore:
        """Read the counters before a job.

        Returns:
            What the worker has used so far.
        """
        if self._may_have_changed or time.monotonic() - self._read_at > _RECENT_S:
            # A job may have closed the descriptor.
            with contextlib.suppress(OSError, ValueError, IndexError):
                memory = self._statm()
                self._resident = memory.resident
                self._anonymous = memory.anonymous
        if self._peak > self._resident + _NEGLIGIBLE:
            self._reset_peak()
        cpu_s = self._own_cpu_s + self._children_cpu_s
        return UsedBefore(cpu_s, self._resident, self._anonymous, self._children_peak)

    def end(self, seconds: float) -> tuple[float, int]:
        """Read the counters after a job.

        The kernel remembers only the largest child that there ever was, and counts a child's memory
        from the fork, before it ran another program. So a child counts only if it took more than
        this process ever did, and more than all children before it.

        Args:
            seconds: the time that the job ran, in seconds.

        Returns:
            The CPU time of the job and of the children that it has waited for, in seconds; and its
            peak of memory in bytes: what it added to this process, or what the largest of these
            children took.
        """
        own_before, children_before = self._own_cpu_s, self._children_cpu_s
        largest_before = max(self._highest_peak, self._children_peak)
        peak_before = self._peak
        self._read_counters()
        # In less time, a job can neither allocate nor free an amount that matters.
        self._may_have_changed = seconds > SHORT_S or self._peak != peak_before
        peak = self._peak - self._resident
        if self._children_peak > max(largest_before, self._highest_peak):
            peak = max(peak, self._children_peak)
        cpu_s = self._own_cpu_s - own_before + self._children_cpu_s - children_before
        return max(0.0, cpu_s), max(0, peak)

    def skip(self) -> None:
        """Leave out what was used since the end of the last job."""
        self._read_counters()
        self._may_have_changed = True

    def own_memory(self, above: int) -> int:
        """The private memory of this process in bytes, if it is more than `above` bytes; else 0.

        Anonymous memory is cheap to read, and mostly tells enough. The kernel visits every page to
        tell private memory, so that is read only when anonymous memory is large, and then not after
        every job.
        """
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            anonymous = self._statm().anonymous
            self._jobs_since_look += 1
            if anonymous > above + self._shared or (
                anonymous > above and self._jobs_since_look >= _LOOK_EVERY
            ):
                memory = proc.smaps_rollup()
                own = memory["Private_Dirty"] + memory["Private_Clean"]
                # The next look is due when anonymous memory has grown by what is left of the limit.
                # It is late by the shared pages that the process writes to: they become private
                # without such growth.
                self._shared = anonymous - own
                self._jobs_since_look = 0
                return own if own > above else 0
        return 0

    def _statm(self) -> proc.Statm:
        return proc.parse_statm(os.pread(self._statm_fd, _STATM_SIZE, 0))

    def _read_counters(self) -> None:
        self._read_at = time.monotonic()
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._own_cpu_s = own.ru_utime + own.ru_stime
        self._children_cpu_s = children.ru_utime + children.ru_stime
        self._peak = own.ru_maxrss * 1024
        self._highest_peak = max(self._highest_peak, self._peak)
        self._children_peak = children.ru_maxrss * 1024

    def _reset_peak(self) -> None:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
            file.write(_RESET_PEAK)
        self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
