"""What this process is like when a pool starts: all processes of the pool are made alike."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping

from compilepool.client.options import PoolOptions
from compilepool.light_typing import TYPE_CHECKING
from compilepool.linux.cpus import usable_cpus

if TYPE_CHECKING:
    from compilepool.wire.pool_config import PoolConfig

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


def workers_of(options: PoolOptions) -> int:
    """How many workers a pool may have that has these options."""
    return usable_cpus() if options.max_workers is None else options.max_workers


class PoolSetup:
    """What this process is like when a pool starts; all processes of the pool are made alike.

    Attributes:
        env: the environment.
        python_flags: interpreter flags, for the processes that run user code.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self.env = environment_of_pool(os.environ, options.env, workers_of(options))
        # As multiprocessing does, for the processes that run user code.
        self.python_flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # typeshed

    @functools.cached_property
    def config(self) -> PoolConfig:
        """The rest, with the pool's options; made when the supervisor is on its way."""
        from compilepool.client.session.configuration import config_of

        return config_of(self._options, workers_of(self._options), self.python_flags)
