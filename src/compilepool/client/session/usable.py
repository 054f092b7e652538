"""Whether a pool may be used now, and here."""

from __future__ import annotations

import os

from compilepool.any_process.identity import in_toplevel_process
from compilepool.errors import NestedPoolError, PoolClosed


def check_usable(pool: str, owner_pid: int, *, is_closing: bool) -> None:
    """Check that a pool takes jobs of this process.

    Args:
        pool: the name of its class.
        owner_pid: the process that it belongs to.
        is_closing: whether it takes no more jobs.

    Raises:
        NestedPoolError: this process is a worker.
        PoolClosed: the pool belongs to the process that this one was forked from, or is closing.
    """
    if not in_toplevel_process():
        raise NestedPoolError(
            f"a {pool} takes no jobs inside a worker: they would escape the limits of the"
            " pool that runs this job; call the function directly"
        )
    if os.getpid() != owner_pid:
        raise PoolClosed(
            "cannot schedule new futures after a fork: this pool belongs to process"
            f" {owner_pid}, which this one was forked from; make a new pool here"
        )
    if is_closing:
        raise PoolClosed("cannot schedule new futures after shutdown; make a new pool")
