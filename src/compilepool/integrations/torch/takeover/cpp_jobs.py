"""Has Inductor's C++ compilations run in the pool. Inductor itself runs them in threads.

Whatever else Inductor submits to its threads are functions of this process, which mean nothing in a
worker. They stay there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch._inductor import codecache


def take_over_cpp(inductor: Any) -> Callable[[], None]:
    """Patch `AsyncCompile.submit`. In a torch that lacks the places for that, threads compile C++.

    Args:
        inductor: the class `AsyncCompile` of torch/_inductor/async_compile.py.

    Returns:
        A function that removes the patch.
    """
    its_submit = vars(inductor).get("submit")
    compile_cpp = getattr(codecache, "_worker_compile_cpp", None)
    if its_submit is None or compile_cpp is None:
        return _do_nothing
    in_thread = its_submit.__get__(None, inductor)

    def submit(task: Callable[[], Any]) -> Any:
        if not isinstance(task, functools.partial) or task.func is not compile_cpp:
            return in_thread(task)
        if not inductor.use_process_pool():  # as with other kernels: no worker is there yet
            return in_thread(task)
        return inductor.process_pool().submit(task.func, *task.args, **task.keywords)

    def undo() -> None:
        inductor.submit = its_submit

    inductor.submit = staticmethod(submit)
    return undo


def _do_nothing() -> None:
    """Undo nothing, because nothing is patched."""
