"""What a machine needs to run a pool. The module can be imported on any platform."""

from __future__ import annotations

import os
import sys


class KernelTooOld(Exception):
    """This machine lacks something that the pool needs. The message says what."""


def check_platform() -> None:
    """Check that this machine has everything that a pool needs.

    That is Linux with pidfd_open(2) (5.3) and waiting by pidfd, waitid(2) (5.4); /proc; and a
    kernel that lists a thread's children there, proc(5).

    Raises:
        KernelTooOld: something is missing, or a sandbox forbids it.
    """
    if sys.platform != "linux":
        raise KernelTooOld(f"compilepool needs Linux, this is {sys.platform}")
    try:
        pidfd = os.pidfd_open(os.getpid())
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            # No process is its own child, so this is the expected answer. A kernel that cannot wait
            # by pidfd says EINVAL.
            pass
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
