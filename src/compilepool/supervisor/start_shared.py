"""The first steps of a supervisor that its clients share. It belongs to none of them.

The client that starts it waits for this process, which leaves a child behind: the supervisor. So
the supervisor is nobody's child, and no program waits for it that waits for all its children.
"""

from __future__ import annotations

import gc
import os
import resource
import sys

from compilepool.linux.spawn import FIRST_FD
from compilepool.supervisor.fork_server_start import ForkServerStarter


def main() -> None:
    """Run the supervisor in a child of this process.

    The arguments are the pool's name in its directory, and the client's interpreter flags. The
    descriptors are the listening socket, the locked file, the directory that has both, and the
    pidfd of the client that starts this process.
    """
    if os.fork():
        os._exit(0)
    name, *python_flags = sys.argv[1:]
    listener, lock, directory, first = range(FIRST_FD, FIRST_FD + 4)
    for fd in (listener, lock, directory, first):
        os.set_inheritable(fd, False)
    # The output of the client that happens to be the first one may be a pipe, whose reader waits
    # for its end, and the working directory may be on a disk that somebody wants to unmount.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    os.chdir("/")
    gc.disable()  # as in `start`
    own_pidfd = os.pidfd_open(os.getpid())
    fd_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    starter = ForkServerStarter(own_pidfd, fd_limit)
    starter.start_ahead(python_flags)
    from compilepool.supervisor.supervisor import run_shared

    gc.freeze()
    gc.enable()
    run_shared(name, listener, lock, directory, first, starter)
