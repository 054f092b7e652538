"""loky's `get_reusable_executor` over `CompilePool`: stands in for `loky.reusable_executor`."""

from __future__ import annotations

import threading
from typing import Any

from tools.executor_tests.loky_executor import ProcessPoolExecutor

__all__ = ["_ReusablePoolExecutor", "get_reusable_executor"]


class _Current(threading.local):
    """The executor of each thread."""

    executor: ProcessPoolExecutor | None = None
    arguments: dict[str, Any] | None = None


_current = _Current()


class _ReusablePoolExecutor:
    """The class whose method also tells whether the executor is the last one."""

    @classmethod
    def get_reusable_executor(
        cls,
        max_workers: int | None = None,
        context: Any = None,
        timeout: float | None = 10,
        kill_workers: bool = False,
        reuse: bool | str = "auto",
        **arguments: Any,
    ) -> tuple[ProcessPoolExecutor, bool]:
        """A pool with these arguments: the last one if they are the same, otherwise a new one."""
        wanted = dict(arguments, max_workers=max_workers, context=context, timeout=timeout)
        last = _current.executor
        if last is not None and not last._shut:
            if reuse is True:
                wanted = dict(_current.arguments or {})
                wanted["max_workers"] = max_workers or wanted["max_workers"]
            if wanted == _current.arguments and reuse is not False:
                return last, True
            last.shutdown(wait=True, kill_workers=kill_workers)
        _current.executor = ProcessPoolExecutor(**wanted)
        _current.arguments = wanted
        return _current.executor, False


def get_reusable_executor(*arguments: Any, **keywords: Any) -> ProcessPoolExecutor:
    """The pool of `_ReusablePoolExecutor.get_reusable_executor`."""
    return _ReusablePoolExecutor.get_reusable_executor(*arguments, **keywords)[0]
