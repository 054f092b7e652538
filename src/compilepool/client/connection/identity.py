"""The identity of a pool: all that makes the jobs of two processes interchangeable.

Processes whose pools have the same identity share one supervisor. A difference in anything below
gives another one, never a wrong result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import sys
from collections.abc import Mapping

from compilepool.client.flights import digest_of
from compilepool.light_typing import Any
from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.version import __version__
from compilepool.wire.payloads import Payload
from compilepool.wire.pool_config import PoolConfig

_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup")
"""Containers differ in them, and so does what a path, a PID or an address means; namespaces(7)."""


def identity_of(
    config: PoolConfig, env: Mapping[str, str], startup: Payload | None, *, counts_cpus: bool
) -> str:
    """The identity of a pool that starts in this process now, as hexadecimal digits.

    Args:
        config: the pool's configuration, without what belongs to one client.
        env: the environment of the pool's processes.
        startup: what every worker starts with; None if nothing.
        counts_cpus: whether `max_workers` follows from the CPUs of all clients. It is then no part
            of the identity.
    """
    settings = config._asdict()
    if counts_cpus:
        settings["max_workers"] = None
    facts = {
        "package": _package(),
        "interpreter": _interpreter(),
        "process": _process(),
        "settings": settings,
        "env": dict(env),
        "startup": "" if startup is None else digest_of(startup),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _package() -> list[Any]:
    """This package: its version, and its files, which a developer changes without a version."""
    root = os.path.join(PACKAGE_ROOT, "compilepool")
    files = []
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                files.append([os.path.join(folder, name), status.st_size, status.st_mtime_ns])
    return [__version__, sorted(files)]


def _interpreter() -> list[Any]:
    # `sys.executable` itself counts, too: a virtual environment is found from the link's place.
    return [sys.executable, os.path.realpath(sys.executable), sys.version, sys.prefix]


def _process() -> list[Any]:
    """What processes inherit of their parents, credentials(7), and where in the system they are."""
    namespaces = {}
    for name in _NAMESPACES:
        with contextlib.suppress(OSError):
            namespaces[name] = os.readlink(f"/proc/self/ns/{name}")
    numbers = sorted({getattr(resource, name) for name in dir(resource) if name[:7] == "RLIMIT_"})
    limits = [resource.getrlimit(number) for number in numbers]
    ids = [os.getresuid(), os.getresgid(), sorted(os.getgroups())]
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    root = os.stat("/")
    return [namespaces, limits, ids, niceness, _umask(), [root.st_dev, root.st_ino]]


def _umask() -> str:
    """The umask, which nobody can read but from here without changing it, proc(5)."""
    with open("/proc/self/status") as status:
        return next((line.split()[1] for line in status if line.startswith("Umask:")), "")
