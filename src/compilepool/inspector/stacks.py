"""Reads the native stacks of a process, and reports those that it could not read.

It reads each stack by the best means that the kernel allows.
"""

from __future__ import annotations

import math
import os
import sys
import time

from compilepool.inspector.refusals import why_memory_refused, why_ptrace_refused
from compilepool.inspector.report_writer import ReportWriter
from compilepool.inspector.signal_frame import Fault, find_fault
from compilepool.inspector.target import Maps, Target
from compilepool.inspector.thread_snapshot import STACK_COPIED, NotStopped, ThreadSnapshot, Tracer
from compilepool.inspector.unwinder import LibdwError, Unwinder, bare_frame
from compilepool.linux.process import memory_limit
from compilepool.wire.native_report import CrashSite, ThreadStack

MAX_THREADS = 64
"""The most threads whose stacks are in a report, besides those that have crashed."""

_PARK_BOUND_S = 1.0
"""The seconds that a crashed thread may take to park.

The inspector is started at the first bytes of the Python traceback.
"""

_FIRST_PARK_BOUND_S = 0.3
"""The seconds that the first crashed thread may take to park once a later one has parked.

The later one need not write a traceback, so it may be faster.
"""

_POLL_S = 0.001

_OTHERS_BOUND_S = 0.7
"""The seconds after the start in which threads that have not crashed are read.

Somebody waits for the report.
"""

_GROUP_SIZE = 4
"""The number of threads that are held and read in one go, in a process that has crashed.

The first of these groups, which has the main thread, is read even if the time is up.
"""

_ROOM = 2 * 1024 * 1024 * 1024
"""The bytes of memory that libdw may take, in addition to the files that it reads."""


def report_stacks(target: Target, writer: ReportWriter, is_crash: bool, libdw: str) -> None:
    """Report the native stacks of all threads, those that have crashed first.

    Args:
        target: the process.
        writer: the writer of the report.
        is_crash: whether the process has crashed.
        libdw: the path or name of libdw; empty if there is none.
    """
    deadline = time.monotonic() + _OTHERS_BOUND_S if is_crash else math.inf
    if os.uname().machine != "x86_64" or sys.maxsize < 1 << 32:
        writer.missing("native stacks: they are read on x86-64 only")
        return
    try:
        target.open_memory()
        faults = _wait_for_faults(target) if is_crash else {}
        maps = target.maps()
    except PermissionError as error:
        writer.missing(f"native stacks: {why_memory_refused(target, error)}")
        return
    except OSError as error:
        writer.missing(f"native stacks: the process cannot be read: {error}")
        return
    if is_crash and not faults:
        writer.missing(f"the crash: {_why_no_fault(target)}")
    with memory_limit(_ROOM + maps.bytes_of_code_files()):
        _Stacks(target, writer, maps, libdw).report(faults, deadline)


def _wait_for_faults(target: Target) -> dict[int, Fault]:
    """Wait until the crashed threads have parked.

    Returns:
        The fault of each crashed thread by thread id. The thread whose Python traceback was written
        is the first.
    """
    start = time.monotonic()
    while target.is_alive():
        faults = {tid: fault for tid in target.tids() if (fault := find_fault(target, tid))}
        order = sorted(faults, key=lambda tid: not faults[tid].has_traceback)
        is_complete = bool(order) and faults[order[0]].has_traceback
        bound_s = _FIRST_PARK_BOUND_S if faults else _PARK_BOUND_S
        if is_complete or time.monotonic() - start > bound_s:
            return {tid: faults[tid] for tid in order}
        time.sleep(_POLL_S)
    return {}


def _why_no_fault(target: Target) -> str:
    if not target.is_alive():
        return "the process died before it could be looked at"
    return f"no thread was found in a crash within {_PARK_BOUND_S:.0f} s"


class _Stacks:
    def __init__(self, target: Target, writer: ReportWriter, maps: Maps, libdw: str) -> None:
        self._target = target
        self._writer = writer
        self._maps = maps
        self._libdw = libdw
        self._unwinder: Unwinder | None = None
        self._may_trace = True

    def report(self, faults: dict[int, Fault], deadline: float) -> None:
        for tid, fault in list(faults.items())[:1]:
            self._writer.write(self._crash_site(tid, fault))
        # Write these first, because the rest may take longer than there is time.
        for tid, fault in faults.items():
            self._write_bare(tid, self._target.state(tid), fault.registers.pc, True)
        try:
            self._unwinder = Unwinder(self._target, self._maps, self._libdw)
        except LibdwError as error:
            self._writer.missing(
                "native stacks beyond the innermost function: libdw cannot be used"
                f" ({error}); pip install pystack, or install elfutils"
            )
        for tid, fault in faults.items():
            sp = fault.registers.sp
            snapshot = ThreadSnapshot(fault.registers, sp, self._stack(sp))
            self._write(tid, self._target.state(tid), snapshot, True)
        others = [tid for tid in self._target.tids() if tid not in faults]
        if len(others) > MAX_THREADS:
            self._writer.missing(f"native stacks of {len(others) - MAX_THREADS} more threads")
        which = "the other threads" if faults else "the threads"
        self._report_others(others[:MAX_THREADS], which, deadline)

    def _report_others(self, tids: list[int], which: str, deadline: float) -> None:
        """Read the threads that have not crashed, in groups.

        Each thread is held only while it is copied. Unwinding takes longer, so that is done when
        all threads of the group run again.
        """
        tracer = Tracer(self._target)
        group_size = MAX_THREADS if deadline == math.inf else _GROUP_SIZE
        for first in range(0, len(tids), group_size):
            if first and time.monotonic() > deadline:
                left = len(tids) - first
                self._writer.missing(f"native stacks of {left} more threads: the time was up")
                return
            copied: list[tuple[int, str, ThreadSnapshot]] = []
            for tid in tids[first : first + group_size]:
                state = self._target.state(tid)
                try:
                    snapshot = self._copy(tracer, tid, which)
                except ProcessLookupError:
                    if self._target.is_alive():
                        continue  # the thread has ended
                    self._writer.missing(f"native stacks of {which}: the process died meanwhile")
                    return
                if snapshot is not None:
                    copied.append((tid, state, snapshot))
            for tid, state, snapshot in copied:
                tracer.let_go()
                self._write(tid, state, snapshot, False)

    def _copy(self, tracer: Tracer, tid: int, which: str) -> ThreadSnapshot | None:
        """Copy a thread by ptrace, or without it as far as possible.

        Raises:
            ProcessLookupError: the thread or the process has ended.
        """
        if self._may_trace:
            try:
                return tracer.take(tid)
            except ProcessLookupError:
                raise
            except OSError as error:
                self._may_trace = False
                self._writer.missing(
                    f"native stacks of {which}: {why_ptrace_refused(self._target, error)}."
                    " Threads that wait are read without it, as far as possible"
                )
            except NotStopped as error:
                self._writer.missing(f"native stack of thread {tid}, maybe in part: {error}")
        return self._copy_without_ptrace(tid)

    def _copy_without_ptrace(self, tid: int) -> ThreadSnapshot | None:
        """Copy a thread that waits in the kernel, without ptrace.

        What can be read without ptrace is enough for most frames.
        """
        call = self._target.system_call(tid)
        if call is None:
            return None
        return ThreadSnapshot(call.registers, call.registers.sp, self._stack(call.registers.sp))

    def _stack(self, sp: int) -> bytes:
        return self._target.read(sp, STACK_COPIED)

    def _crash_site(self, tid: int, fault: Fault) -> CrashSite:
        place = bare_frame(self._maps, fault.registers.pc)
        return CrashSite(
            tid=tid,
            thread_name=self._target.name(tid),
            pc=place.pc,
            address=fault.address,
            access=fault.access,
            trap=fault.trap,
            library=place.library,
            offset=place.offset,
        )

    def _write(self, tid: int, state: str, snapshot: ThreadSnapshot, is_crashed: bool) -> None:
        unwinder = self._unwinder
        frames, is_cut = unwinder.unwind(snapshot) if unwinder else ([], False)
        if unwinder is None or not frames:
            self._write_bare(tid, state, snapshot.registers.pc, is_crashed)
            return
        stack = ThreadStack(tid, self._target.name(tid), state, is_crashed, frames, is_cut)
        if is_crashed:
            self._writer.write(stack)  # names may take longer than there is time
        self._writer.write(stack._replace(frames=unwinder.named(frames)))

    def _write_bare(self, tid: int, state: str, pc: int, is_crashed: bool) -> None:
        frames = [bare_frame(self._maps, pc)]
        self._writer.write(
            ThreadStack(tid, self._target.name(tid), state, is_crashed, frames, False)
        )
