"""How code can tell that it runs in a worker.

The counterparts in PyTorch stand in `torch/_inductor/compile_worker/utils.py` and
`torch/_inductor/runtime/compile_tasks.py`.
"""

from __future__ import annotations

import os

from compilepool.linux.pidfds import wait_dead

_parent_pidfd: int | None = None


def in_toplevel_process() -> bool:
    """Whether this process is none of the workers, and none that a worker's job forked.

    Returns:
        False in a worker of a `CompilePool`, and after `worker_initializer`; True otherwise.
    """
    return _parent_pidfd is None


def has_parent_changed() -> bool:
    """Whether the process that this worker works for is gone.

    Asks the kernel, by pidfd, so it is right also where the parent's pid was given to another
    process, or where the worker was not forked by the parent itself.

    Returns:
        Always False in a top-level process.
    """
    return _parent_pidfd is not None and wait_dead(_parent_pidfd, 0)


def become_worker_of(parent_pid: int) -> int:
    """From now on this process is a worker.

    Returns:
        The pidfd of its parent, to be left open.

    Raises:
        ProcessLookupError: the parent is gone.
    """
    global _parent_pidfd  # noqa: PLW0603 - a fact about the process as a whole
    _parent_pidfd = os.pidfd_open(parent_pid)
    return _parent_pidfd
