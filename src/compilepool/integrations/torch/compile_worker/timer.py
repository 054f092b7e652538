"""`Timer`, for those who come from `torch._inductor.compile_worker.timer`. Pools need none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Timer:
    """Calls when nothing was recorded for a while. Until then its thread sleeps, and never polls.

    Args:
        duration: for how long, in seconds.
        call: what is called, in the timer's thread; again only after another `record_call`. If it
            takes longer than `duration`, that may be before it has returned.
    """

    def __init__(self, duration: float, call: Callable[[], None]) -> None:
        self.duration = duration
        self.call = call
        self._condition = threading.Condition()
        self._due: float | None = None
        self._has_thread = False
        self._has_quit = False

    def record_call(self) -> None:
        """Something has happened: the time counts anew. After `quit`, nothing is done."""
        with self._condition:
            if self._has_quit:
                return
            # Later than the thread expects: it looks again when it wakes up, so it need not now.
            self._due = time.monotonic() + self.duration
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._run, name="compilepool timer", daemon=True).start()

    def quit(self) -> None:
        """Never call any more. The thread ends, at once unless it is calling."""
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
        self.call()  # not under the lock: it may take long, or record a call
