"""Notes which threads and processes jobs leave behind.

If one of them kills the worker later, the job that runs then is not to blame. The kernel tells the
age of a thread only to a hundredth of a second, in which many jobs can run, so the worker looks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from compilepool.linux import proc
from compilepool.wire.status_page import StatusPage


class Leftovers:
    """Keeps the list of leftovers on a status page up to date.

    What is there when this object is made is no job's.

    Args:
        status: the worker's status page.
    """

    def __init__(self, status: StatusPage) -> None:
        self._status = status
        self._python_threads = threading._active  # type: ignore[attr-defined] # CPython 3.11 to 3.14
        self._known_threads = len(self._python_threads)
        threads = proc.threads()
        self._own = {*threads, *_children(threads)}
        self._noted: tuple[list[int], list[int]] = [], []

    @property
    def may_have_changed(self) -> bool:
        """Whether the number of Python threads has changed since the last look."""
        return len(self._python_threads) != self._known_threads

    def note(self) -> None:
        """Look for leftovers, after a job that has taken long, or if they may have changed."""
        self._known_threads = len(self._python_threads)
        threads = proc.threads()
        noted = sorted({*threads} - self._own), sorted({*_children(threads)} - self._own)
        if noted != self._noted:
            self._noted = noted
            self._status.set_left(*noted)


def _children(threads: Iterable[int]) -> list[int]:
    """The living children that threads of this process have forked."""
    children = []
    for tid in threads:
        with contextlib.suppress(OSError):
            for pid in map(int, proc.read_proc(f"/proc/self/task/{tid}/children").split()):
                with contextlib.suppress(OSError, ValueError):  # it was reaped meanwhile
                    if proc.stat(pid).state not in "ZX":
                        children.append(pid)
    return children
