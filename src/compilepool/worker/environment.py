"""The environment variables of one job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def environment(variables: Sequence[tuple[str, str | None]]) -> Iterator[None]:
    """Within it, these variables are set, or unset if None; afterwards they are as before."""
    before = [(name, os.environ.get(name)) for name, _ in variables]
    _apply(variables)
    try:
        yield
    finally:
        _apply(before)


def _apply(variables: Sequence[tuple[str, str | None]]) -> None:
    for name, value in variables:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
