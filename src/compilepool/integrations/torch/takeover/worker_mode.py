"""Inductor's worker modes, and what they mean for the pool.

torch has them from 2.15 on: `torch._inductor.config.compile_worker_mode`, which the environment
variable TORCH_COMPILE_WORKER_MODE sets. In the mode "thread", and in "auto" if Python is
free-threaded, Inductor compiles Triton kernels in threads of its own process
(`AsyncCompile.get_worker_pool` in torch/_inductor/async_compile.py). The pool still gets all its
other jobs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

_ASKS = "should_use_thread_workers"


def watch_worker_mode(async_compile: Any, takes_all: Callable[[], bool]) -> Callable[[], None]:
    """Have Inductor send Triton kernels to the pool in any mode, or warn that it does not.

    Args:
        async_compile: the module torch/_inductor/async_compile.py.
        takes_all: a function that says whether the pool gets them in any mode.

    Returns:
        A function that undoes this.
    """
    inductor = getattr(async_compile, "AsyncCompile", None)
    if not hasattr(inductor, _ASKS):
        return _do_nothing
    original = vars(inductor)[_ASKS]
    uses_threads = _UsesThreads(getattr(inductor, _ASKS), takes_all)
    if async_compile.get_compile_threads() > 1:
        uses_threads.warn_if_so()

    def undo() -> None:
        setattr(inductor, _ASKS, original)

    setattr(inductor, _ASKS, staticmethod(uses_threads))
    return undo


class _UsesThreads:
    """Replaces `AsyncCompile.should_use_thread_workers`, which is asked for each kernel."""

    def __init__(self, its: Callable[[], bool], takes_all: Callable[[], bool]) -> None:
        self._its = its
        self._takes_all = takes_all
        self._has_warned = False

    def __call__(self) -> bool:
        if self._takes_all() or not self._its():
            return False
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(_meaning(), RuntimeWarning, stacklevel=2)
        return True

    def warn_if_so(self) -> None:
        """Warn now if Inductor uses threads. What else it may say of the mode, it says later."""
        try:
            self()
        except ValueError:  # no such mode
            return


def _meaning() -> str:
    mode = sys.modules["torch._inductor.config"].compile_worker_mode
    return (
        f"Inductor compiles Triton kernels in threads of this process (compile_worker_mode is"
        f" {mode!r}), and not in the pool of compilepool: a compiler that crashes ends the"
        " program, and no timeout or memory_limit holds. To have the pool compile them, use"
        " install(worker_mode='process') or TORCH_COMPILE_WORKER_MODE=process"
    )


def _do_nothing() -> None:
    """Undo nothing: this torch has no worker modes."""
