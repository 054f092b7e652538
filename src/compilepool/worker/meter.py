"""What jobs use: CPU time and memory, of this worker and of the children that jobs wait for."""

from __future__ import annotations

import contextlib
import os
import resource
import time

from compilepool.linux import proc
from compilepool.wire.status_page import UsedBefore

_STATM_SIZE = 256
_SHORT_S = 0.0005
_RECENT_S = 0.005  # for so long, what jobs have left running can do little
_LOOK_EVERY = 20  # jobs
_NEGLIGIBLE = 1 << 20
_RESET_PEAK = b"5"  # for /proc/PID/clear_refs, proc(5)


class Meter:
    """Reads what the kernel counts (getrusage(2), proc(5)) at the begin and the end of each job.

    A job of no length costs two system calls; the one after a longer job some more.

    Raises:
        OSError: no descriptors.
    """

    def __init__(self) -> None:
        self._statm_fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._own_cpu_s = self._children_cpu_s = 0.0
        self._peak = self._highest = self._children_peak = 0
        self._resident = self._anonymous = 0
        self._shared = self._unlooked_jobs = 0
        self._may_have_changed = True
        self._read()

    def begin(self) -> UsedBefore:
        """A job is about to begin."""
        if self._may_have_changed or time.monotonic() - self._read_at > _RECENT_S:
            with contextlib.suppress(OSError, ValueError, IndexError):  # a job has closed it
                memory = self._statm()
                self._resident = memory.resident
                self._anonymous = memory.anonymous
        if self._peak > self._resident + _NEGLIGIBLE:
            self._reset_peak()
        cpu_s = self._own_cpu_s + self._children_cpu_s
        return UsedBefore(cpu_s, self._resident, self._anonymous, self._children_peak)

    def end(self, seconds: float) -> tuple[float, int]:
        """The job has ended.

        Args:
            seconds: for how long it ran.

        Returns:
            CPU time in seconds, of itself and of the children that it has waited for; and the most
            memory, in bytes, that it has added to this process, or that one of those children had.
            The kernel counts the largest child there ever was, from before it was another program:
            so one is seen only if it had more than this process, and than those before it.
        """
        own_before, children_before = self._own_cpu_s, self._children_cpu_s
        largest_before = max(self._highest, self._children_peak)
        peak_before = self._peak
        self._read()
        # In less time than that, memory that matters can neither be taken nor given back.
        self._may_have_changed = seconds > _SHORT_S or self._peak != peak_before
        peak = self._peak - self._resident
        if self._children_peak > max(largest_before, self._highest):
            peak = max(peak, self._children_peak)
        cpu_s = self._own_cpu_s - own_before + self._children_cpu_s - children_before
        return max(0.0, cpu_s), max(0, peak)

    def own_memory(self, above: int) -> int:
        """The bytes that this process shares with no other, if they are more than `above`; else 0.

        What it has in memory at all is known soon, and mostly tells enough.
        """
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            anonymous = self._statm().anonymous
            self._unlooked_jobs += 1
            if anonymous > above + self._shared or (
                anonymous > above and self._unlooked_jobs >= _LOOK_EVERY
            ):
                memory = proc.smaps_rollup()
                own = memory["Private_Dirty"] + memory["Private_Clean"]
                # It may grow by what is left of the limit before it must be looked at again, but
                # for what it writes to of that which it shares.
                self._shared = anonymous - own
                self._unlooked_jobs = 0
                return own if own > above else 0
        return 0

    def _statm(self) -> proc.Statm:
        return proc.parse_statm(os.pread(self._statm_fd, _STATM_SIZE, 0))

    def _read(self) -> None:
        self._read_at = time.monotonic()
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._own_cpu_s = own.ru_utime + own.ru_stime
        self._children_cpu_s = children.ru_utime + children.ru_stime
        self._peak = own.ru_maxrss * 1024
        self._highest = max(self._highest, self._peak)
        self._children_peak = children.ru_maxrss * 1024

    def _reset_peak(self) -> None:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
            file.write(_RESET_PEAK)
        self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
