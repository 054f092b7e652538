"""The supervisor's first steps: it starts a fork server, and imports the rest of itself meanwhile.

So this has few imports of its own.
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

    Arguments: the interpreter flags of the client, for the fork server. Descriptors: the client's
    socket, the client's pidfd.
    """
    gc.disable()  # what is garbage after the imports is not worth the time that it takes to look
    client_pidfd = FIRST_FD + 1
    _close_fds_from(client_pidfd + 1)
    for fd in (FIRST_FD, client_pidfd):
        os.set_inheritable(fd, False)
    fd_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    starter = ForkServerStarter(client_pidfd, fd_limit)
    starter.start_ahead(sys.argv[1:])
    from compilepool.supervisor.supervisor import run

    gc.freeze()
    gc.enable()
    run(client_pidfd, starter)


def _close_fds_from(first: int) -> None:
    """Close all descriptors numbered `first` and above.

    Those that the program made inheritable come through exec, and would keep its pipes open.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd >= first:
            try:  # noqa: SIM105 - `contextlib` takes long to import
                os.close(fd)
            except OSError:  # that of the folder
                pass
