"""The job that runs one chunk of `CompilePool.map`.

Apart from `client.executor`, so that a worker imports nothing of the client for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from compilepool.light_typing import Any, TypeVar

T = TypeVar("T")


def run_chunk(fn: Callable[..., T], chunk: Iterable[Sequence[Any]]) -> list[T]:
    """Call `fn` with each group of arguments. Returns the results in the same order."""
    return [fn(*args) for args in chunk]
