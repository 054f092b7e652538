"""`Timer` of `torch._inductor.compile_worker.timer`. Only this integration uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Timer:
    """Calls a function when nothing was recorded for a while. Its thread sleeps and never polls.

    Args:
        duration: the time without a `record_call`, in seconds.
        call: the function. The timer's thread calls it, once until the next `record_call`. If the
            function takes longer than `duration`, a second call may begin before the first returns.
    """

    def __init__(self, duration: float, call: Callable[[], None]) -> None:
        self.duration = duration
        self.call = call
        self._condition = threading.Condition()
        self._due: float | None = None
        self._has_thread = False
        self._has_quit = False

    def record_call(self) -> None:
        """Start the time anew. After `quit`, this does nothing."""
        with self._condition:
            if self._has_quit:
                return
            # The thread need not be woken: it reads the new time when it wakes at the old one.
            self._due = time.monotonic() + self.duration
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._run, name="compilepool timer", daemon=True).start()

    def quit(self) -> None:
        """End the timer. Its thread ends at once, unless it is in a call."""
        with self._condition:
            self._has_quit = True
            self._condition.notify_all()

    def _run(self) -> None:
        with self._condition:
            while not self._has_quit and self._due is not None:
                left_s = self._due - time.monotonic()
                if left_s <= 0:
                    break
                self._condition.wait(min(left_s, threading.TIMEOUT_MAX))
            self._has_thread = False
            self._due = None
            if self._has_quit:
                return
        self.call()  # without the lock: it may take long, or call `record_call`
