"""What jobs use: CPU time and memory, of this worker and of the children that jobs wait for."""

from __future__ import annotations

import contextlib
import os
import resource

from compilepool.wire.status import UsedBefore

_PAGE = os.sysconf("SC_PAGE_SIZE")
_RESET_PEAK = b"5"  # for /proc/PID/clear_refs, proc(5)


class Meter:
    """Reads what the kernel counts (getrusage(2)) at the begin and at the end of each job.

    A job of no length costs two system calls; only what has raised the peak of memory costs more.
    """

    def __init__(self) -> None:
        self._cpu_s = self._own_cpu_s = self._peak = self._highest = 0.0
        self._resident = self._anonymous = 0
        self._is_peak_stale = True
        self._read()

    def begin(self) -> UsedBefore:
        """A job is about to begin."""
        if self._is_peak_stale:
            self._reset_peak()
        return UsedBefore(self._cpu_s, self._resident, self._anonymous)

    def end(self) -> tuple[float, int]:
        """The job has ended.

        Returns:
            CPU time in seconds, of itself and of the children that it has waited for; and the most
            memory, in bytes, that it has added to this process, or that one of those children had.
            The kernel counts a child's from before it was another program: one that never had more
            than this process is not seen.
        """
        cpu_before, own_cpu_before, peak_before = self._cpu_s, self._own_cpu_s, self._peak
        self._read()
        peak = self._peak - self._resident
        self._is_peak_stale = self._peak > peak_before
        cpu_s = self._cpu_s - cpu_before
        if cpu_s > self._own_cpu_s - own_cpu_before:  # it had children
            children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            if children > self._highest:
                peak = max(peak, children)
        return cpu_s, max(0, int(peak))

    def _read(self) -> None:
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._own_cpu_s = own.ru_utime + own.ru_stime
        self._cpu_s = self._own_cpu_s + children.ru_utime + children.ru_stime
        self._peak = own.ru_maxrss * 1024
        self._highest = max(self._highest, self._peak)

    def _reset_peak(self) -> None:
        self._is_peak_stale = False
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
            file.write(_RESET_PEAK)
        with open("/proc/self/statm", "rb") as file:
            fields = file.read().split()
        self._resident = int(fields[1]) * _PAGE
        self._anonymous = (int(fields[1]) - int(fields[2])) * _PAGE
        self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
