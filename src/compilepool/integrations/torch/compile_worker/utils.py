"""The functions of torch/_inductor/compile_worker/utils.py, which tell what a process is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from compilepool.any_process.identity import has_parent_changed, in_toplevel_process
from compilepool.any_process.worker_initializer import worker_initializer

__all__ = ["_async_compile_initializer", "has_parent_changed", "in_toplevel_process"]


def _async_compile_initializer(orig_ppid: int, close_fds: Sequence[int] = ()) -> None:
    """Make this process a worker of any process pool; see `compilepool.worker_initializer`.

    Args:
        orig_ppid: the PID of the process that owns the pool.
        close_fds: inherited descriptors that this process must not keep.
    """
    for fd in close_fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    worker_initializer(orig_ppid)
