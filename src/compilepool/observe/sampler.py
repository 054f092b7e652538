"""Looks at a pool now and then, while it has jobs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

from compilepool.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord
    from compilepool.observe.observer import Consumer, Sample

_log = logging.getLogger(__name__)


class Sampler:
    """Has a thread while there are jobs, and none while there are not. An `Observer`.

    Args:
        look: looks at the pool.
        consumers: who is told.
        interval_s: how often, in seconds. The first time is after so long: a job that is shorter
            is not worth a look.
    """

    def __init__(
        self, look: Callable[[], Sample], consumers: Sequence[Consumer], interval_s: float
    ) -> None:
        self._look = look
        self._consumers = consumers
        self._interval_s = interval_s
        self._condition = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._unfinished = 0
        self._is_closed = False
        self._owner_pid = os.getpid()

    def submitted(self, id: int, name: str) -> None:
        """As `Observer.submitted`."""
        with self._condition:
            self._unfinished += 1
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name="compilepool sampler", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # no more threads: then there is nothing to be seen
                    self._thread = None

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """As `Observer.ended`."""
        with self._condition:
            self._unfinished -= 1

    def close(self) -> None:
        """The pool has ended: no more looks."""
        if self._owner_pid != os.getpid():
            return  # the thread is in the parent, and may have had the lock
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._interval_s + 1.0)  # it may be held up by a look, or a slow terminal
        for consumer in self._consumers:
            consumer.close()

    def abandon(self) -> None:
        """As `Observer.abandon`."""
        self._condition = threading.Condition(threading.RLock())
        self._is_closed = True
        for consumer in self._consumers:
            consumer.abandon()

    def _run(self) -> None:
        had_jobs = False
        while self._is_wanted(had_jobs):
            told = self._tell()
            if told is None:
                break
            had_jobs = told.unfinished > 0

    def _is_wanted(self, had_jobs: bool) -> bool:
        """Wait until it is time for a look. False if there is nothing to look at any more."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed, self._interval_s)
            is_wanted = not self._is_closed and (bool(self._unfinished) or had_jobs)
            if not is_wanted:
                self._thread = None  # the next job starts another
            return is_wanted

    def _tell(self) -> Sample | None:
        try:
            look = self._look()
            for consumer in self._consumers:
                consumer.sample(look)
        except Exception:  # noqa: BLE001 - it is logged; the jobs go on
            _log.exception("this pool is not looked at any more")
            with self._condition:
                self._is_closed = True
                self._thread = None
            return None
        return look
