"""The threads that a pool has in its user's process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from compilepool.observe.quiet_logger import QuietLogger

_log = QuietLogger(__name__)


class Background:
    """Runs tasks one after the other, in a daemon thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer that runs within it may wait
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, task: Callable[[], None]) -> None:
        """Run a task soon; in this thread if no other can be started."""
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
        """Whether a task calls this."""
        return self._thread is threading.current_thread()

    def wait(self, timeout_s: float) -> None:
        """Wait until there are no tasks. Returns at once if a task calls this."""
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
            except BaseException:  # noqa: BLE001 - the other tasks must run
                _log.exception("a task in the background failed")


class PoolThreads:
    """The threads of one pool.

    Attributes:
        reader: reads from the supervisor; None if there is none.
        latest_reader: the same, or the one before. It may still end the futures of a supervisor
            that is gone.
        background: writes crash folders.
    """

    def __init__(self) -> None:
        self.reader: threading.Thread | None = None
        self.latest_reader: threading.Thread | None = None
        self.background = Background()

    def is_here(self) -> bool:
        """Whether one of them calls this: it runs a callback, and must not wait for itself."""
        return self.background.is_here() or self.is_reader()

    def is_reader(self) -> bool:
        """Whether the thread that reads from the supervisor calls this."""
        return threading.current_thread() in (self.reader, self.latest_reader)
