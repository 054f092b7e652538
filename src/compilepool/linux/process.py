"""What a process of ours asks of the kernel for itself: prctl(2), limits, memory, scheduling.

The standard library has no functions for most of it. The functions work on Linux only, but the
module can be imported anywhere, because libc is loaded when it is first needed.
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
    """The C library.

    There is one object, so that forked workers share the functions that were looked up before the
    fork.
    """
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def libc_error(call: str) -> OSError:
    """The error of a function of `libc()` that has just failed.

    Args:
        call: the function's name and arguments, for the message.
    """
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def resolve(*names: str) -> None:
    """Look up functions of libc now, so that processes that are forked later need not."""
    for name in names:
        getattr(libc(), name)


def trim_heap() -> None:
    """Return freed memory to the kernel, malloc_trim(3), if this libc has that function."""
    with contextlib.suppress(AttributeError):
        libc().malloc_trim(0)


def give_back_memory() -> None:
    """Return to the kernel all memory that a sleeping process does not need.

    That is freed memory, and the interpreter's code. The code stays in the page cache, and comes
    back page by page as it runs.
    """
    gc.collect()
    trim_heap()
    with contextlib.suppress(OSError, ValueError):
        for start, end in proc.unwritten_file_mappings():
            _drop_pages(start, end)


@contextlib.contextmanager
def memory_limit(room: int) -> Iterator[None]:
    """Limit how much more memory this process can map, for the duration of the context.

    Args:
        room: the bytes that it can map in addition to what it has mapped.
    """
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    # RLIM_INFINITY is -1 in Python.
    limits = (proc.statm().mapped + room, before, hard)
    resource.setrlimit(resource.RLIMIT_AS, (min(limit for limit in limits if limit >= 0), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def _drop_pages(start: int, end: int) -> None:
    """Drop this process's pages of a file mapping from memory, madvise(2) MADV_DONTNEED.

    They come back when they are touched. Anything that was written to them is lost.
    """
    import ctypes

    libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _prctl(option: int, value: int) -> None:
    import ctypes

    if libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise libc_error(f"prctl({option}, {value})")


def become_subreaper() -> None:
    """Make this process the parent of its orphaned descendants.

    See PR_SET_CHILD_SUBREAPER in prctl(2).
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill (SIGKILL) this process when the thread that forked it ends.

    If the parent has already ended, this process is killed at once. The setting is cleared in a
    forked child and kept across exec, prctl(2) PR_SET_PDEATHSIG.

    Args:
        parent_pid: the PID of the expected parent.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def die_first_for_memory() -> None:
    """Make this process the first that the kernel kills when memory runs out.

    Its children inherit that, see oom_score_adj in proc(5).
    """
    _write("/proc/self/oom_score_adj", b"1000")


def use_cpus(cpus: Collection[int], nice: int) -> None:
    """Restrict this process to some CPUs, and lower its priority.

    It also gets the policy SCHED_BATCH, sched(7), so that it does not preempt a running process
    when it wakes up. A process with a policy other than the default keeps it.

    Args:
        cpus: the numbers of the CPUs. Those that this process may not use are ignored; if it may
            use none of them, its affinity stays.
        nice: the number that is added to this process's niceness, nice(2).
    """
    usable = set(cpus) & os.sched_getaffinity(0)
    if usable:
        os.sched_setaffinity(0, usable)
    if nice:
        os.nice(nice)
    with contextlib.suppress(OSError):  # a sandbox may forbid it, and musl lacks these functions
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def allow_ptrace(pid: int) -> None:
    """Allow a process and its descendants to trace this one where Yama would forbid it.

    See prctl(2) PR_SET_PTRACER, and `admin-guide/LSM/Yama.rst` in the kernel's documentation.

    Args:
        pid: the PID of the process that may trace.
    """
    with contextlib.suppress(OSError):  # a kernel without Yama does not know this option
        _prctl(_PR_SET_PTRACER, pid)


def children_cpu_s() -> float:
    """The CPU time of all children that this process has reaped, in seconds.

    It contains the time of their own reaped children, getrusage(2).
    """
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def raise_fd_limit() -> tuple[int, int]:
    """Raise the soft limit of open files to the hard limit.

    Returns:
        The soft limit before and after.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def set_fd_limit(soft: int) -> None:
    """Set the soft limit of open files. Does nothing if that is refused."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def set_process_title(title: str, comm: str) -> None:
    """Show `title` as this process's command line (`ps -f`) and `comm` as its name (`top`).

    The title is cut to the space of the original command line. If the kernel hides the addresses of
    the command line, only the name changes.
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
