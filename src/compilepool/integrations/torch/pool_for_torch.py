"""A `CompilePool` whose processes are made for Inductor's jobs. Needs no torch in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.names import ENABLE, OPTIONS

PRELOAD = "compilepool.integrations.torch.worker.preload"

_PREFIXES = ("TORCHINDUCTOR_", "TRITON_")
_NAMES = ("CUDA_HOME", "LD_LIBRARY_PATH")
_NOT_IN_WORKERS: dict[str, str | None] = {"TORCH_WARM_POOL": "0", ENABLE: None, OPTIONS: None}
"""No process of a pool starts a pool: neither Inductor's own nor, by autoload, one of ours."""


def make_pool(
    max_workers: int,
    *,
    start_method: Literal["fork", "spawn"] = "fork",
    preload: Sequence[str] = (),
    env: Mapping[str, str | None] | None = None,
    **options: Any,
) -> CompilePool:
    """A pool, not started yet.

    Args:
        max_workers: how many jobs may run at once.
        start_method: as `CompilePool` has it.
        preload: what is preloaded beside torch and Triton.
        env: as `CompilePool` has it.
        options: the other options of `CompilePool`.

    Raises:
        What `CompilePool` raises.
    """
    env = {**(env or {}), **_NOT_IN_WORKERS}
    return CompilePool(
        max_workers,
        start_method=start_method,
        preload=[PRELOAD, *preload],
        env=env,
        **options,
    )


class CompilerEnv:
    """The variables that compilers go by, as they were when a pool started.

    Programs change them while it runs, and expect that the next kernel is compiled accordingly.
    """

    def __init__(self) -> None:
        self._then = _compiler_env()

    def changes(self) -> dict[str, str | None]:
        """What is different now; None: unset."""
        now = _compiler_env()
        if now == self._then:
            return {}
        unset: dict[str, str | None] = {name: None for name in self._then if name not in now}
        return unset | {name: value for name, value in now.items() if self._then.get(name) != value}


def _compiler_env() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_PREFIXES) or name in _NAMES
    }
