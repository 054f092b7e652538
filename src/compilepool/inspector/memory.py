"""Bounds of this process: no broken file or name must have it take all memory of the machine."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def memory_limit(room: int) -> Iterator[None]:
    """Meanwhile, have this process map no more than `room` bytes beyond what it has mapped."""
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    # RLIM_INFINITY is -1 here.
    soft = min(limit for limit in (mapped + room, before, hard) if limit >= 0)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
