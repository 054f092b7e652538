"""A worker that was exec'ed: preloads by itself, then works like any other."""

from __future__ import annotations

import os
import sys

from compilepool.wire.channel import Channel
from compilepool.wire.config import PoolConfig
from compilepool.wire.messages import Form, Kind, text_message
from compilepool.wire.payloads import Payload
from compilepool.wire.spawn import FIRST_FD
from compilepool.worker.bootstrap import apply_config, bootstrap
from compilepool.worker.main import work
from compilepool.worker.preload import preload


def main() -> None:
    """Run the worker of this process.

    Arguments: the fork server's pid, and how many descriptors: the supervisor's socket, the crash
    file, the configuration, and maybe the startup payload.
    """
    parent_pid, fd_count = (int(argument) for argument in sys.argv[1:])
    for fd in range(FIRST_FD, FIRST_FD + fd_count):
        os.set_inheritable(fd, False)
    channel = Channel.adopt(FIRST_FD)
    bootstrap(parent_pid, FIRST_FD + 1)
    config = PoolConfig.of_payload(Payload(Form.MEMFD, b"", FIRST_FD + 2))
    apply_config(config)
    if all(preload(module, channel) for module in config.preload):
        channel.send(text_message(Kind.IMPORTING, ""))  # what happens now is no fault of a module
        work(channel, FIRST_FD + 1, FIRST_FD + 3 if fd_count > 3 else None)
    os._exit(1)
