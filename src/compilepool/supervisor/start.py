"""The supervisor's first steps: start a fork server, then import the rest of the supervisor.

The two overlap, so this module imports little.
"""

from __future__ import annotations

import gc
import os
import resource
import sys

from compilepool.linux.spawn import FIRST_FD
from compilepool.supervisor.fork_server_start import ForkServerStarter


def main() -> None:
    """Run the supervisor of this process.

    The arguments are the client's interpreter flags, for the fork server. The descriptors are the
    client's socket and the client's pidfd.
    """
    gc.disable()  # the imports leave so little garbage that collecting it costs more than it frees
    client_pidfd = FIRST_FD + 1
    for fd in (FIRST_FD, client_pidfd):
        os.set_inheritable(fd, False)
    fd_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    starter = ForkServerStarter(client_pidfd, fd_limit)
    starter.start_ahead(sys.argv[1:])
    from compilepool.supervisor.supervisor import run

    gc.freeze()
    gc.enable()
    run(client_pidfd, starter)
