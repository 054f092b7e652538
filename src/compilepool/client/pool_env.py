"""The environment of a pool's processes."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.client.cpus import usable_cpus

_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
"""How many threads libraries start in a process. OpenBLAS goes by the first, too."""


def environment_of_pool(
    own: Mapping[str, str], env: Mapping[str, str | None], max_workers: int
) -> dict[str, str]:
    """What the pool's processes get.

    Args:
        own: this process's.
        env: what the user wants different; None: unset.
        max_workers: how many workers share the CPUs.
    """
    share = str(max(1, usable_cpus() // max_workers))
    merged: dict[str, str | None] = {**dict.fromkeys(_THREAD_COUNTS, share), **own, **env}
    return {name: value for name, value in merged.items() if value is not None}
