"""A thread for what may take its time, so that the reader need not wait for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Background:
    """Runs tasks one after the other, in a daemon thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer that runs within it may wait
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, task: Callable[[], None]) -> None:
        """Run a task soon; in this thread where no other can be started."""
        with self._lock:
            self._tasks.append(task)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._work, name="compilepool", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # no more threads, or the interpreter is about to end
                self._thread = threading.current_thread()
        self._work()

    def is_here(self) -> bool:
        """Whether a task is what calls this."""
        return self._thread is threading.current_thread()

    def wait(self, timeout_s: float) -> None:
        """Wait until there are no tasks. Called by a task, it does not wait."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._thread = None
                    return
                task = self._tasks.popleft()
            try:
                task()
            except BaseException:  # noqa: BLE001 - the other tasks are none of its business
                _log.exception("a task in the background failed")
