"""What a job of Inductor's is called: by the kernel that it compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

_PREFIX = "_worker_"  # of the functions that Inductor has workers run


def kernel_name(function: Callable[..., Any], args: Sequence[Any]) -> str | None:
    """The name of the kernel; None if this job compiles none.

    Args:
        function: what the job calls, such as `_worker_compile_triton`, which takes a partial of a
            function of the kernel's name, or `_worker_compile_pycodecache_kernel`, which takes the
            name (torch/_inductor/runtime/compile_tasks.py).
        args: its arguments.
    """
    if not args or not getattr(function, "__name__", "").startswith(_PREFIX):
        return None
    first = args[0]
    if isinstance(first, functools.partial) and first.args:
        first = first.args[0]
    return first if isinstance(first, str) else None
