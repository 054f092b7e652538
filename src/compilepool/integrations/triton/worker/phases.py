"""Has Triton report its stages as phases of the job, by the names that its listener gives them."""

from __future__ import annotations

import functools
from collections.abc import Callable

from triton.backends import backends

from compilepool import report_phase
from compilepool.light_typing import Any


@functools.cache
def report_stages() -> None:
    """Report the stages of every later compilation in this process, when each begins.

    Each backend adds its stages with a method that is called if the kernel is not in the cache.
    No cache key depends on the method, as it does on `knobs.runtime.add_stages_inspection_hook`.
    """
    for backend in backends.values():
        backend.compiler.add_stages = _reporting(backend.compiler.add_stages)


def _reporting(add_stages: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(add_stages)
    def reporting(self: Any, stages: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        add_stages(self, stages, *args, **kwargs)
        report_phase("ir_initialization")
        for name, stage in list(stages.items()):
            stages[name] = functools.partial(_run, name, stage)

    return reporting


def _run(name: str, stage: Callable[..., Any], *args: Any) -> Any:
    report_phase(name)
    return stage(*args)
