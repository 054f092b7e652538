"""Joins the supervisor that serves pools like this one."""

from __future__ import annotations

import os

from compilepool.client.connection.configuration import own_log_level
from compilepool.client.connection.identity import identity_of
from compilepool.client.connection.meeting import meet
from compilepool.client.connection.setup import PoolSetup
from compilepool.client.connection.shared_supervisor import SharedSupervisor
from compilepool.client.connection.sharing import linger_of, own_name
from compilepool.client.options import PoolOptions
from compilepool.wire.joining import Joining
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload


def join(options: PoolOptions, setup: PoolSetup, startup: Payload | None) -> SharedSupervisor:
    """Join the supervisor that serves pools like this one; start it if there is none.

    Args:
        options: the pool's.
        setup: what its processes are made like; it is shared.
        startup: what every worker starts with, which stays open; None if nothing.

    Raises:
        CannotMeet: that is impossible.
    """
    config = setup.config
    counts_cpus = options.max_workers is None
    joining = Joining(
        identity_of(config, setup.env, startup, counts_cpus=counts_cpus),
        os.getpid(),
        own_name(),
        linger_of(options),
        () if config.cpus else tuple(sorted(os.sched_getaffinity(0))),
        counts_cpus,
        own_log_level(),
    )

    def configure() -> Message:
        message = config.payload().message(Kind.CONFIGURE)
        if startup is None:
            return message
        fd = startup.message(Kind.CONFIGURE).fds[0]
        return message._replace(fds=(*message.fds, os.dup(fd) if fd == startup.fd else fd))

    return meet(joining, configure, setup.env, setup.python_flags)
