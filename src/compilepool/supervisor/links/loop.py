"""The event loop: calls back when a descriptor is ready or a time has come."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import time
from collections.abc import Callable

from compilepool.light_typing import TypeAlias

Callback: TypeAlias = Callable[[], None]

_LONGEST_S = 3600.0  # epoll_wait(2) takes the milliseconds as an int


class ScheduledCall:
    """A callback that is due at some time, and can be cancelled."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Drop the callback."""
        self.callback = None


class Loop:
    """Calls back while a descriptor is readable or its peer is gone.

    Callbacks must not block: after a descriptor was closed and its number reused, a callback may
    come although there is nothing to read.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, ScheduledCall]] = []
        self._numbers = itertools.count()

    def watch(self, fd: int, on_readable: Callback) -> None:
        """Call `on_readable` while `fd` has something to read, or has hung up."""
        self._readers[fd] = on_readable
        self._epoll.register(fd, select.EPOLLIN)

    def watch_writable(self, fd: int, on_writable: Callback | None) -> None:
        """Also call `on_writable` while the watched `fd` takes data; None ends that."""
        if (fd in self._writers) == (on_writable is not None):
            return
        if on_writable is None:
            del self._writers[fd]
            self._epoll.modify(fd, select.EPOLLIN)
        else:
            self._writers[fd] = on_writable
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`. Call this before `fd` is closed."""
        if self._readers.pop(fd, None) is not None:
            self._writers.pop(fd, None)
            self._epoll.unregister(fd)

    def call_at(self, when: float, callback: Callback) -> ScheduledCall:
        """Call back once, at the time `when` of `time.monotonic()`."""
        timer = ScheduledCall(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_once(self, timeout_s: float | None, *, spin_s: float = 0.0) -> None:
        """Wait for events, and call back for each.

        Args:
            timeout_s: how long to wait, in seconds; None waits without limit.
            spin_s: how long to poll before going to sleep, in seconds. Waking up from sleep takes
                longer than a poll.
        """
        for fd, events in self._wait(timeout_s, spin_s):
            if events & ~select.EPOLLOUT and (reader := self._readers.get(fd)):
                reader()
            if events & select.EPOLLOUT and (writer := self._writers.get(fd)):
                writer()
        while self._timers and self._timers[0][0] <= time.monotonic():
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()

    def _wait(self, timeout_s: float | None, spin_s: float) -> list[tuple[int, int]]:
        if spin_s:
            deadline = time.monotonic() + spin_s
            while time.monotonic() < deadline:
                if events := self._epoll.poll(0):
                    return events
                os.sched_yield()  # others may want this CPU
        return self._epoll.poll(self._patience_s(timeout_s))

    def _patience_s(self, timeout_s: float | None) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return timeout_s
        left_s = min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST_S)
        return left_s if timeout_s is None else min(left_s, timeout_s)
