"""The preload module of a pool for Numba: the fork server loads once what each function needs."""

from __future__ import annotations

from compilepool.integrations.numba.worker.be_a_worker import be_a_worker
from compilepool.linux.spawn import is_pool_process


def _load() -> None:
    from numba.core.registry import cpu_target

    be_a_worker()
    # A process does this before it first compiles, and it takes 0.2 s.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


if is_pool_process():  # elsewhere, importing this module has no effect
    _load()
