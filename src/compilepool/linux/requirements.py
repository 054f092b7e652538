"""What this machine must have for a pool. Imports on any platform, to say what is missing."""

from __future__ import annotations

import os
import sys


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
