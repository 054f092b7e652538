"""Whether a pool's workers have started, and who waits for that."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from compilepool.wire.messages import Readiness


class Warmth:
    """What is known of it. Futures end outside all locks, see `CompileFuture`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._readiness = Readiness.NONE
        self._told: Future[bool] | None = None
        self._told_first: Future[bool] | None = None
        self._number = 0

    @property
    def is_warm(self) -> bool:
        """Whether all workers have started that were asked for."""
        return self._readiness is Readiness.ALL

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

    def expect_first(self) -> Future[bool]:
        """A warm-up is about to be sent, and who calls this waits for its first worker.

        Returns:
            True if there is one, or why there cannot be; False if that is not to be waited for any
            more: the supervisor is gone, or workers are not wanted.
        """
        with self._lock:
            if self._told_first is None:
                self._told_first = Future()
            return self._told_first

    def told(self, number: int, readiness: Readiness) -> None:
        """The supervisor has told, after this warm-up had come."""
        is_of_last = number == self._number or (number == 0 and self._told is None)
        if not is_of_last:
            return  # what it knew before it heard of the last one
        self._readiness = readiness
        if readiness is Readiness.NONE:
            return
        if first := self._take_first():
            first.set_result(True)
        if readiness is Readiness.ALL and (told := self._take()):
            told.set_result(True)

    def failed(self, number: int, error: BaseException) -> None:
        """Workers cannot be had, as was found after this warm-up had come."""
        if number != self._number:
            return
        for told in (self._take_first(), self._take()):
            if told:
                told.set_exception(error)

    def quiesced(self) -> None:
        """Nobody wants workers any more."""
        if first := self._take_first():
            first.set_result(False)
        if told := self._take():
            told.cancel()

    def lost(self) -> None:
        """There is no supervisor any more."""
        self._readiness = Readiness.NONE
        for told in (self._take_first(), self._take()):
            if told:
                told.set_result(False)

    def abandon(self) -> None:
        """After a fork, in the child: the lock may be held for ever."""
        self._lock = threading.RLock()

    def _take(self) -> Future[bool] | None:
        with self._lock:
            told, self._told = self._told, None
            return told

    def _take_first(self) -> Future[bool] | None:
        with self._lock:
            told, self._told_first = self._told_first, None
            return told
