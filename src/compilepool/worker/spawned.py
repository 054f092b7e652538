"""A worker that was started by exec: it preloads by itself, then works like a forked one."""

from __future__ import annotations

import os
import sys

from compilepool.linux.spawn import FIRST_FD
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Form, Kind, text_message
from compilepool.wire.payloads import Payload
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.worker_start import WorkerFds, WorkerOrders
from compilepool.worker import random_state
from compilepool.worker.bootstrap import apply_config, bootstrap, preload
from compilepool.worker.main import work


def main() -> None:
    """Run the worker of this process.

    The arguments are the fork server's PID, the supervisor's PID, the number of descriptors, and
    the `WorkerOrders` as JSON. The descriptors begin at `FIRST_FD`: first the memfd of the
    configuration, then the descriptors of `WorkerFds`.
    """
    parent_pid, supervisor_pid, fd_count = (int(argument) for argument in sys.argv[1:4])
    orders = WorkerOrders.decode(sys.argv[4].encode())
    config_fd, *flat = range(FIRST_FD, FIRST_FD + fd_count)
    for fd in (config_fd, *flat):
        os.set_inheritable(fd, False)
    config = PoolConfig.of_payload(Payload(Form.MEMFD, b"", config_fd))
    fds = WorkerFds.of_flat(flat, captures=config.capture)
    channel = Channel.adopt(fds.socket)
    bootstrap(parent_pid, supervisor_pid, fds.crash, config, orders)
    apply_config(config)
    if all(preload(module, channel) for module in config.preload):
        random_state.start_anew(config.seed)  # the preload may have seeded all workers alike
        # From here on, a death is not a preload module's fault.
        channel.send(text_message(Kind.IMPORTING, ""))
        work(channel, fds, orders)
    os._exit(1)
