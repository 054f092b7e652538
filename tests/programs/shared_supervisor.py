"""A supervisor of several clients, whose sockets and pidfds it gets at once."""

from __future__ import annotations

import os
import resource
import sys

from compilepool.linux import process
from compilepool.supervisor.fork_server_start import ForkServerStarter
from compilepool.supervisor.supervisor import Supervisor
from compilepool.wire.channel import Channel


def main(fds: list[int]) -> None:
    """Serve clients; `fds` are the socket and the pidfd of each."""
    for fd in fds:
        os.set_inheritable(fd, False)
    # The fork server ends with the test, and not with its first client.
    lease = os.pidfd_open(os.getppid())
    starter = ForkServerStarter(lease, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    process.become_subreaper()
    supervisor = Supervisor(starter)
    for socket, pidfd in zip(fds[::2], fds[1::2], strict=True):
        supervisor.add_client(Channel.adopt(socket), pidfd)
    supervisor.run()


if __name__ == "__main__":
    main([int(fd) for fd in sys.argv[1:]])
