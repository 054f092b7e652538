"""Kernel calls that the standard library has no name for, and what is read from `/proc`.

The one place for them. Linux only, but elsewhere it can be imported, so that `check_platform` can
say so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterable

from compilepool.wire.light_typing import TYPE_CHECKING

if TYPE_CHECKING:  # not everybody calls libc
    import ctypes

_MADV_DONTNEED = 4  # <sys/mman.h>

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PTRACER = 0x59616D61

_LET_GO_S = 1.0
_COMM_LENGTH = 15  # TASK_COMM_LEN less its NUL, proc(5)


class KernelTooOld(Exception):
    """Something that the pool cannot do without is missing; the message says what."""


def check_platform() -> None:
    """Raise `KernelTooOld` unless this is a Linux that has all that the pool needs (>= 5.4)."""
    if sys.platform != "linux":
        raise KernelTooOld(f"compilepool needs Linux, this is {sys.platform}")
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass  # nobody's child is its own; a kernel that cannot wait by pidfd says EINVAL
        finally:
            os.close(pidfd)
    except (AttributeError, OSError) as error:
        raise KernelTooOld(
            f"compilepool needs pidfds (Linux 5.4, and a sandbox that allows them): {error}"
        ) from None
    if not os.path.exists("/proc/self/task"):
        raise KernelTooOld("compilepool needs /proc, and it is not mounted")
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        raise KernelTooOld("compilepool needs /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)")


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


def drop_pages(start: int, end: int) -> None:
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


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def allow_ptrace(pid: int) -> None:
    """Let the process `pid` and those below it look into this one where Yama would forbid it.

    prctl(2) PR_SET_PTRACER, and `admin-guide/LSM/Yama.rst` of the kernel.
    """
    with contextlib.suppress(OSError):  # a kernel without Yama does not know it
        _prctl(_PR_SET_PTRACER, pid)


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind `pidfd`. Never hits a recycled pid.

    Returns:
        False if it is gone, may not be signalled, or the descriptor was closed by somebody.
    """
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    return True


def kill_below(pid: int, ancestor: int, ancestor_pidfd: int) -> None:
    """Kill (SIGKILL) a process if it is below another one, which is alive."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if is_really_below(pid, ancestor, ancestor_pidfd):
            send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def is_really_below(pid: int, ancestor: int, ancestor_pidfd: int) -> bool:
    """Whether a process is below another one.

    To be asked when there is a pidfd of `pid`, so that it cannot become another process's. If the
    ancestor is alive afterwards, that holds for its pid as well.
    """
    return _is_below(pid, ancestor) and not wait_dead(ancestor_pidfd, 0)


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return pid == ancestor


def kill_child(pid: int) -> None:
    """Kill (SIGKILL) a process if it is a child of this one that nobody has reaped."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises if it is not
        os.kill(pid, signal.SIGKILL)


def wait_dead(pidfd: int, timeout_s: float) -> bool:
    """Wait until the process behind `pidfd` is dead (maybe not reaped); False on timeout."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))


def reap(pidfd: int) -> int | None:
    """Reap the dead child behind `pidfd`.

    Returns its exit code, negated signal number if a signal killed it, or None if it is not dead
    or somebody else (a `waitpid(-1)`, an ignored SIGCHLD) reaped it.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def reap_with_peak(pidfd: int, pid: int) -> tuple[int | None, int]:
    """As `reap`; and the most memory that the child, or one of its own, had resident.

    Args:
        pidfd: of the child.
        pid: of the same child.

    Returns:
        Exit code, and bytes, getrusage(2).
    """
    try:
        # One that a debugger holds is dead, and cannot be reaped until that lets go.
        deadline = time.monotonic() + _LET_GO_S
        while os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return None, 0
            time.sleep(0.001)
        _, status, usage = os.wait4(pid, 0)  # nobody else has reaped it, so it is that child
    except OSError:
        return None, 0
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def children_cpu_s() -> float:
    """The CPU time of all children that this process has reaped, and of theirs, in seconds."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, proc(5) SigCgt."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            caught = file.read().partition(b"SigCgt:")[2].split(maxsplit=1)[0]
        return bool(int(caught, 16) >> (number - 1) & 1)
    except (OSError, ValueError, IndexError):
        return False


def children() -> list[int]:
    """The pids of this process's children, of all its threads, proc(5)."""
    pids: list[int] = []
    for task in _listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", "rb") as file:
            pids.extend(int(pid) for pid in file.read().split())
    return pids


def sweep(keep: Iterable[int] = (), patience_s: float = 5.0) -> list[int]:
    """Kill all descendants of this subreaper but the children in `keep` and what is below them.

    Only children are signalled: their pids cannot be recycled before this process reaps them. What
    they leave is reparented here when they die, and goes in the next round.

    Returns:
        The pids of those that are still alive: after `patience_s` seconds (in uninterruptible
        sleep), or because they may not be signalled (setuid programs).
    """
    spared = set(keep)
    survivors: list[int] = []
    deadline = time.monotonic() + patience_s
    while victims := [pid for pid in children() if pid not in spared]:
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                spared.add(pid)
                survivors.append(pid)
        for pid in victims:
            # One descriptor at a time: there may be more victims than descriptors left.
            if pid not in spared and not _reap_child(pid, deadline - time.monotonic()):
                spared.add(pid)
                survivors.append(pid)
    return survivors


def _reap_child(pid: int, timeout_s: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        is_dead = wait_dead(pidfd, timeout_s)
        reap(pidfd)
        return is_dead
    finally:
        os.close(pidfd)


def thread_names() -> list[str]:
    """The names of this process's threads but the main one, proc(5) comm.

    A thread that was given none has its process's, and "" here.
    """
    names = []
    with open("/proc/self/comm") as file:
        common = file.read().strip()
    for task in _listdir("/proc/self/task"):
        if int(task) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
                name = file.read().strip()
                names.append("" if name == common else name)
    return names


def open_files() -> list[str]:
    """The targets of this process's open file descriptors, as `/proc/self/fd` shows them."""
    targets = []
    for fd in _listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return targets


def is_child_of_main_thread(parent_pid: int) -> bool:
    """Whether this process was forked by the main thread of `parent_pid`."""
    try:
        with open(f"/proc/{parent_pid}/task/{parent_pid}/children", "rb") as file:
            return os.getpid() in map(int, file.read().split())
    except OSError:
        return False


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
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # proc(5): (48) arg_start, (49) arg_end
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


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
