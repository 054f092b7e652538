"""What the processes of a pool take."""

from __future__ import annotations

from collections.abc import Iterable

from compilepool.observe.stats import Memory
from compilepool.wire.process_tree import descendants
from compilepool.wire.smaps import smaps_rollup


def memory_of_pool(supervisor: int, fork_server: int, workers: Iterable[int]) -> Memory:
    """What they take, and all that is below workers. Slow: the kernel looks at each page.

    Args:
        supervisor: its pid; 0 if there is none. So with the others.
        fork_server: its pid.
        workers: their pids.
    """
    pids = [pid for pid in workers if pid]
    own = {supervisor, fork_server, *pids}
    below = {child for pid in pids for child, _ in descendants(pid)} - own
    return Memory(
        _pss(supervisor),
        _pss(fork_server),
        sum(map(_pss, pids)),
        sum(map(_pss, below)),
    )


def _pss(pid: int) -> int:
    if not pid:
        return 0
    try:
        return smaps_rollup(pid)["Pss"]
    except (OSError, ValueError, KeyError):
        return 0  # it has ended meanwhile
