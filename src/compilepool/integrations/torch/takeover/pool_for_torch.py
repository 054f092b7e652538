"""Makes a `CompilePool` whose processes are fit for Inductor's jobs. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.installed_files import fingerprint
from compilepool.integrations.torch.settings import ENABLE, FILES, OPTIONS, PROGRAM_PID

OnCrash: TypeAlias = Literal["raise", "in_process"]
"""The values of `on_crash`, which says what to do with a kernel whose worker crashed."""

WorkerMode: TypeAlias = Literal["process"]
"""The values of `worker_mode`, which says who compiles, whatever Inductor's own mode says."""

PRELOAD = "compilepool.integrations.torch.worker.preload"

_NOT_IN_WORKERS: dict[str, str | None] = {
    "TORCH_WARM_POOL": "0",
    "TORCH_TRACE": None,
    "TORCH_DTRACE": None,
    ENABLE: None,
    OPTIONS: None,
    PROGRAM_PID: None,
}
"""Variables that keep the pool's processes, and all that jobs start, from starting a pool. What is
only read with `ENABLE` is unset: programs may share a pool whatever it says. Without TORCH_TRACE,
they leave no traces beside that of the program, which has their jobs. torch's own pool leaves none.
"""

_READ_ONCE = "TORCHINDUCTOR_"
"""The prefix of the variables that Inductor's config reads when it is imported."""
_SENT_WITH_EACH_KERNEL = ("TORCHINDUCTOR_CACHE_DIR",)
"""The variables with that prefix that Inductor passes to the worker with each kernel."""
_OF_DEVICE = "TRITON_CACHE_DIR"
"""Also passed with each kernel. torch sets it while the program runs, to a folder of the device's
own. So a shared pool starts without it, and each job has that of its rank.
"""


def make_pool(
    max_workers: int | None,
    *,
    shared: bool,
    start_method: Literal["fork", "spawn"] = "fork",
    preload: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    **options: Any,
) -> CompilePool:
    """Make a pool, without starting it.

    Args:
        max_workers: the number of jobs that may run at once; None: the number of usable CPUs, of
            all ranks if the pool is shared.
        shared: whether other programs of this node may have the same pool, and the same kernel is
            compiled once for all of them. They have the same torch and Triton then.
        start_method: `CompilePool`'s.
        preload: modules to preload in addition to torch and Triton.
        env: `CompilePool`'s.
        options: the other options of `CompilePool`.

    Raises:
        TypeError, ValueError, OSError, CompilePoolError: `CompilePool` raises it.
    """
    env = {**(env or {}), **_NOT_IN_WORKERS}
    if shared:
        env = {_OF_DEVICE: None, FILES: fingerprint(), **env}
    return CompilePool(
        max_workers,
        start_method=start_method,
        preload=[PRELOAD, *preload],
        env=env,
        **{"shared": shared, "single_flight": shared, **options},
    )


class EnvAtStart:
    """A copy of the environment at the start of a pool. It tells what has changed since.

    Programs set variables while they run, and expect them to apply to the next kernel.

    Args:
        shared: whether the pool is shared.
    """

    def __init__(self, *, shared: bool) -> None:
        self._then = dict(os.environ)
        if shared:
            self._then.pop(_OF_DEVICE, None)

    def changes(self) -> dict[str, str | None]:
        """Return the variables that differ now; None: the variable is unset."""
        now = dict(os.environ)
        if now == self._then:
            return {}
        unset: dict[str, str | None] = {name: None for name in self._then if name not in now}
        changed = {name: value for name, value in now.items() if self._then.get(name) != value}
        changes = unset | changed
        for name in _NOT_IN_WORKERS:
            changes.pop(name, None)
        return changes

    @property
    def is_outdated(self) -> bool:
        """Whether Inductor's config would differ if Inductor read the environment now."""
        return any(
            name.startswith(_READ_ONCE) and name not in _SENT_WITH_EACH_KERNEL
            for name in self.changes()
        )
