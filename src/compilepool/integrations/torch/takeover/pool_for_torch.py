"""A `CompilePool` whose processes are made for Inductor's jobs. Needs no torch in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.settings import ENABLE

OnCrash: TypeAlias = Literal["raise", "in_process"]
"""What becomes of a kernel whose worker crashed: see `install`."""

PRELOAD = "compilepool.integrations.torch.worker.preload"

_NOT_IN_WORKERS: dict[str, str | None] = {"TORCH_WARM_POOL": "0", ENABLE: None}
"""No process of a pool, and nothing that jobs start, starts a pool: Inductor's own or ours."""

_READ_ONCE = "TORCHINDUCTOR_"
_SENT_WITH_EACH_KERNEL = ("TORCHINDUCTOR_CACHE_DIR",)


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


class EnvAtStart:
    """The environment as it was when a pool started, to tell its jobs what has changed since.

    Programs set variables while they run, and expect that the next kernel is compiled accordingly.
    """

    def __init__(self) -> None:
        self._then = dict(os.environ)

    def changes(self) -> dict[str, str | None]:
        """What is different now; None: unset."""
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
        """Whether Inductor's config would be another if it were read now."""
        return any(
            name.startswith(_READ_ONCE) and name not in _SENT_WITH_EACH_KERNEL
            for name in self.changes()
        )
