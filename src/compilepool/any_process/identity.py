"""Tells code whether it runs in a worker. It can be called in any process.

The counterparts in PyTorch are in `torch/_inductor/compile_worker/utils.py` and
`torch/_inductor/runtime/compile_tasks.py`.
"""

from __future__ import annotations

import os

from compilepool.linux.pidfds import wait_dead
from compilepool.linux.spawn import is_pool_process

_parent_pidfd: int | None = None


def in_toplevel_process() -> bool:
    """Whether this process is neither a process of a pool nor a process that a job forked.

    Returns:
        False in a worker of a `CompilePool`, also while modules are preloaded for it, and after
        `worker_initializer`; else True.
    """
    return _parent_pidfd is None and not is_pool_process()


def has_parent_changed() -> bool:
    """Whether the process that this worker works for is gone.

    It asks the kernel by pidfd. So the answer is right even if another process got the parent's
    pid, or if the worker was not forked by the parent itself.

    Returns:
        Always False in a top-level process.
    """
    return _parent_pidfd is not None and wait_dead(_parent_pidfd, 0)


def become_worker_of(parent_pid: int) -> int:
    """Make this process a worker.

    Args:
        parent_pid: the PID of the process that it works for.

    Returns:
        The pidfd of the parent, which must stay open.

    Raises:
        ProcessLookupError: the parent is gone.
    """
    global _parent_pidfd  # noqa: PLW0603 - a fact about the process as a whole
    _parent_pidfd = os.pidfd_open(parent_pid)
    return _parent_pidfd
