"""Whether a pool's workers have started, and who waits for that."""

from __future__ import annotations

import threading
from concurrent.futures import Future


class Warmth:
    """What is known of it. Futures end outside all locks, see `CompileFuture`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.is_warm = False
        self._told: Future[bool] | None = None
        self._number = 0

    def expect(self) -> tuple[int, Future[bool]]:
        """A warm-up is about to be sent.

        Returns:
            Its number; and what is told next of this one, or a later one: True, or why that cannot
            be; False if the supervisor is gone. Cancelled if workers are not wanted any more.
        """
        with self._lock:
            self._number += 1
            if self._told is None:
                self._told = Future()
            return self._number, self._told

    def told(self, number: int, *, is_warm: bool) -> None:
        """The supervisor has told, after this warm-up had come."""
        is_of_last = number == self._number or (number == 0 and self._told is None)
        if not is_of_last:
            return  # what it knew before it heard of the last one
        self.is_warm = is_warm
        if is_warm and (told := self._take()):
            told.set_result(True)

    def failed(self, number: int, error: BaseException) -> None:
        """Workers cannot be had, as was found after this warm-up had come."""
        if number == self._number and (told := self._take()):
            told.set_exception(error)

    def quiesced(self) -> None:
        """Nobody wants workers any more."""
        if told := self._take():
            told.cancel()

    def lost(self) -> None:
        """There is no supervisor any more."""
        self.is_warm = False
        if told := self._take():
            told.set_result(False)

    def abandon(self) -> None:
        """After a fork, in the child: the lock may be held for ever."""
        self._lock = threading.RLock()

    def _take(self) -> Future[bool] | None:
        with self._lock:
            told, self._told = self._told, None
            return told
