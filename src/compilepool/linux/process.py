"""What a process of ours asks of the kernel for itself. The standard library has no names for it.

Linux only, but elsewhere it can be imported: libc is loaded when it is called.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
from collections.abc import Collection, Iterator

from compilepool.light_typing import TYPE_CHECKING
from compilepool.linux import proc

if TYPE_CHECKING:  # not every process calls libc
    import ctypes

_MADV_DONTNEED = 4  # <sys/mman.h>

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PTRACER = 0x59616D61

_COMM_LENGTH = 15  # TASK_COMM_LEN less its NUL, proc(5)


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library. One for all, and its functions with it: workers share what is found early."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def resolve(*names: str) -> None:
    """Find functions of libc, so that processes that are forked later need not."""
    for name in names:
        getattr(libc(), name)


def trim_heap() -> None:
    """Give the kernel what this process has freed, malloc_trim(3); where libc has that."""
    with contextlib.suppress(AttributeError):
        libc().malloc_trim(0)


def give_back_memory() -> None:
    """Give the kernel what is not needed for sleeping: freed memory, and the interpreter's code.

    The code is in the page cache all the same, and comes back page by page as it runs.
    """
    gc.collect()
    trim_heap()
    with contextlib.suppress(OSError, ValueError):
        for start, end in proc.unwritten_file_mappings():
            _drop_pages(start, end)


@contextlib.contextmanager
def memory_limit(room: int) -> Iterator[None]:
    """Meanwhile, this process can map no more than `room` bytes beyond what it has mapped."""
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    # RLIM_INFINITY is -1 here.
    limits = (proc.statm().mapped + room, before, hard)
    resource.setrlimit(resource.RLIMIT_AS, (min(limit for limit in limits if limit >= 0), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def _drop_pages(start: int, end: int) -> None:
    """Have the kernel forget that this process has these pages of a file in memory.

    They come back when they are touched, madvise(2). Whatever was written to them is lost.
    """
    import ctypes

    libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _prctl(option: int, value: int) -> None:
    import ctypes

    if libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")


def become_subreaper() -> None:
    """Have orphans among the descendants reparented to this process, prctl(2)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Be killed (SIGKILL) when the thread that forked this process ends; at once if it has.

    The setting is cleared in a fork child and kept across exec, prctl(2) PR_SET_PDEATHSIG.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def die_first_for_memory() -> None:
    """Be the first that the kernel kills when memory runs out, with all children; proc(5)."""
    _write("/proc/self/oom_score_adj", b"1000")


def use_cpus(cpus: Collection[int], nice: int) -> None:
    """Use only these CPUs, be nicer, and do not preempt who runs when there is something to do.

    The latter is SCHED_BATCH, sched(7); whoever has another policy than the usual keeps it.

    Args:
        cpus: numbers of CPUs; those that are not to be had are left out, and all if none is.
        nice: what is added to this process's niceness, setpriority(2).
    """
    usable = set(cpus) & os.sched_getaffinity(0)
    if usable:
        os.sched_setaffinity(0, usable)
    if nice:
        os.nice(nice)
    with contextlib.suppress(OSError):  # a sandbox may forbid it, and musl has none of it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def allow_ptrace(pid: int) -> None:
    """Let the process `pid` and those below it look into this one where Yama would forbid it.

    prctl(2) PR_SET_PTRACER, and `admin-guide/LSM/Yama.rst` of the kernel.
    """
    with contextlib.suppress(OSError):  # a kernel without Yama does not know it
        _prctl(_PR_SET_PTRACER, pid)


def children_cpu_s() -> float:
    """The CPU time of all children that this process has reaped, and of theirs, in seconds."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def raise_fd_limit() -> tuple[int, int]:
    """Raise the soft limit of open files to the hard one; returns it from before and now."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def set_fd_limit(soft: int) -> None:
    """Set the soft limit of open files."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def set_process_title(title: str, comm: str) -> None:
    """Show `title` as this process's command line (`ps -f`) and `comm` as its name (`top`).

    The title is cut to the space that the original command line took. Does nothing where the
    kernel hides the addresses.
    """
    import ctypes

    _write("/proc/self/comm", comm[:_COMM_LENGTH].encode())
    with contextlib.suppress(OSError, ValueError):
        start, end = proc.stat().arguments
        if 0 < start < end:
            room = end - start
            text = title.encode()[: room - 1]
            ctypes.memmove(start, text.ljust(room, b"\0"), room)


def _write(path: str, data: bytes) -> None:
    """Write to a file of `/proc`, if that is allowed. Takes less memory than `open`."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
