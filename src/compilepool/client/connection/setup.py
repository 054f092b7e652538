"""What a pool's processes inherit of this process, as it is when the pool starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from compilepool.client.connection.process_variables import (
    process_variables,
    without_process_variables,
)
from compilepool.client.options import PoolOptions
from compilepool.light_typing import TYPE_CHECKING
from compilepool.linux.cpus import usable_cpus

if TYPE_CHECKING:
    from compilepool.wire.pool_config import PoolConfig
    from compilepool.wire.submission import Env

_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
"""How many threads libraries start in a process. OpenBLAS reads the first one, too."""


def environment_of_pool(
    own: Mapping[str, str], env: Mapping[str, str | None], max_workers: int
) -> dict[str, str]:
    """The environment of a pool's processes.

    Args:
        own: this process's environment, which other threads may change meanwhile.
        env: the variables that the user wants to differ; None: unset.
        max_workers: how many workers share the CPUs.
    """
    share = str(max(1, usable_cpus() // max_workers))
    copied = {name: own.get(name) for name in list(own)}
    merged: dict[str, str | None] = {**dict.fromkeys(_THREAD_COUNTS, share), **copied, **env}
    return {name: value for name, value in merged.items() if value is not None}


def max_workers_of(options: PoolOptions) -> int:
    """How many workers a pool with these options may have."""
    return usable_cpus() if options.max_workers is None else options.max_workers


class PoolSetup:
    """What a pool's processes inherit; taken once, so later processes are like the first.

    Args:
        options: the pool's.
        is_shared: whether processes serve other clients, too: then they do not take over what
            names this process.

    Attributes:
        env: the environment.
        is_shared: as given.
        own_env: the variables of this process that shared processes do not have.
        python_flags: interpreter flags, for the processes that run user code.
    """

    def __init__(self, options: PoolOptions, *, is_shared: bool = False) -> None:
        self._options = options
        self._config: PoolConfig | None = None
        self.is_shared = is_shared
        own_env = process_variables(os.environ) if is_shared else {}
        self.own_env: Env = tuple(own_env.items())
        own = without_process_variables(os.environ) if is_shared else os.environ
        self.env = environment_of_pool(own, options.env, max_workers_of(options))
        # multiprocessing passes on the same flags (Lib/multiprocessing/spawn.py).
        self.python_flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # typeshed

    @property
    def config(self) -> PoolConfig:
        """The configuration of the supervisor. It is made while that starts.

        Not a `functools.cached_property`: before Python 3.12, that has a lock, which a child forked
        meanwhile would wait for.
        """
        if self._config is None:
            try:
                from compilepool.client.connection.configuration import config_of, for_all_clients
            except ImportError as error:
                # A finalizer or a signal handler uses a pool, in the middle of this very import.
                raise RuntimeError(f"another pool is being started just now: {error}") from None
            config = config_of(self._options, max_workers_of(self._options), self.python_flags)
            self._config = for_all_clients(config) if self.is_shared else config
        return self._config
