"""A condition for futures, of which a program may have many."""

from __future__ import annotations

import threading
from collections import deque

from compilepool.wire.light_typing import Any


class Condition(threading.Condition):
    """As `threading.Condition`, without the references to five methods of its lock.

    They are most of the objects that a future is made of, each is made anew for each future, and
    the garbage collector visits them all again and again.
    """

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        self._waiters: deque[Any] = deque()

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        taken: bool = self._lock.acquire(*args, **kwargs)
        return taken

    def release(self) -> None:
        self._lock.release()

    # What `wait` and `notify` call (CPython's Lib/threading.py).

    def _release_save(self) -> Any:
        return self._lock._release_save()

    def _acquire_restore(self, state: Any) -> None:
        self._lock._acquire_restore(state)

    def _is_owned(self) -> bool:
        owned: bool = self._lock._is_owned()
        return owned
