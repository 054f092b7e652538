"""The job that compiles a kernel into Triton's cache, in a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from compilepool import report_phase
from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from compilepool.integrations.triton.recipe import Recipe


class Compiled(NamedTuple):
    """What a worker says of a kernel, which itself is in Triton's cache.

    Attributes:
        hash: its name there.
        times: the times of its compilation, from `knobs.compilation.listener`, in microseconds:
            Triton's `CompileTimes`.
        cache_hit: whether it was there before.
    """

    hash: str
    times: Any
    cache_hit: bool


def compile_kernel(recipe: Recipe) -> Compiled:
    """Compile a kernel. No GPU is opened.

    Raises:
        Exception: whatever `triton.compile` raises.
    """
    report_phase("cache look-up")
    import triton

    from compilepool.integrations.triton.recipe import groups_with
    from compilepool.integrations.triton.worker.phases import report_stages

    report_stages()
    heard: list[dict[str, Any]] = []
    with _knobs(groups_with(recipe.knobs)):
        triton.knobs.compilation.listener = lambda **said: heard.append(said)
        kernel = triton.compile(recipe.source(), target=recipe.target, options=recipe.options)
    return Compiled(kernel.hash, heard[-1]["times"], heard[-1]["cache_hit"])


@contextlib.contextmanager
def _knobs(groups: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[None]:
    """Within the block, Triton has these settings; afterwards, those of before."""
    before = [dict(namespace) for namespace, _ in groups]
    try:
        for namespace, values in groups:
            namespace.clear()
            namespace.update(values)
        yield
    finally:
        for (namespace, _), values in zip(groups, before, strict=True):
            namespace.clear()
            namespace.update(values)
