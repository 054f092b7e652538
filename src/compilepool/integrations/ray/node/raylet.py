"""Ends an actor with its raylet, the process of Ray that has started it.

Ray's own actors look for that every now and then: after a SIGKILL of the raylet, one of Ray 2.60
went on for 30 s, and answered while the cluster took its node for dead. What it runs would run
twice.
"""

from __future__ import annotations

import os
import threading

from compilepool.linux.pidfds import wait_dead


def end_with_raylet() -> None:
    """From now on, end this process at once when its parent ends.

    In a container of its own, it has no parent that it could see.
    """
    parent = os.getppid()
    if parent > 1:
        pidfd = os.pidfd_open(parent)
        threading.Thread(target=_end_with, args=(pidfd,), name="raylet", daemon=True).start()


def _end_with(pidfd: int) -> None:
    while not wait_dead(pidfd, 3600.0):
        pass
    os._exit(1)
