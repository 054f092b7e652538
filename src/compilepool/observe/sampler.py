"""`Sampler`: takes samples of a pool at regular intervals while the pool has jobs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.quiet_logger import QuietLogger

if TYPE_CHECKING:
    from compilepool.observe.observer import Consumer, Sample
    from compilepool.observe.record import JobRecord

_log = QuietLogger(__name__)


class Sampler:
    """Takes samples of a pool, and passes each to the consumers. An `Observer`.

    It has a thread while there are jobs, and none otherwise.

    Args:
        take_sample: a function that takes a sample of the pool.
        consumers: the consumers.
        interval_s: the time between two samples, in seconds. The first sample comes after the same
            time, so that shorter jobs cost nothing.
    """

    def __init__(
        self, take_sample: Callable[[], Sample], consumers: Sequence[Consumer], interval_s: float
    ) -> None:
        self._take_sample = take_sample
        self._consumers = consumers
        self._interval_s = interval_s
        self._condition = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._unfinished = 0
        self._is_closed = False
        self._owner_pid = os.getpid()

    def submitted(self, id: int, name: str) -> None:
        """Implements `Observer.submitted`."""
        with self._condition:
            self._unfinished += 1
            if self._thread is None and not self._is_closed:
                thread = threading.Thread(target=self._run, name="compilepool sampler", daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # the system allows no more threads: go without samples
                    self._thread = None

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """Implements `Observer.ended`."""
        with self._condition:
            self._unfinished -= 1

    def close(self) -> None:
        """Take no more samples, and close the consumers: the pool has ended."""
        if self._owner_pid != os.getpid():
            return  # the thread is the parent's, and may have held the lock during the fork
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._interval_s + 1.0)  # bounded: a sample or a terminal may be slow
        for consumer in self._consumers:
            consumer.close()

    def abandon(self) -> None:
        """Implements `Observer.abandon`."""
        self._condition = threading.Condition(threading.RLock())
        self._is_closed = True
        for consumer in self._consumers:
            consumer.abandon()

    def _run(self) -> None:
        had_jobs = False
        while self._is_wanted(had_jobs):
            told = self._tell_consumers()
            if told is None:
                break
            had_jobs = told.unfinished > 0

    def _is_wanted(self, had_jobs: bool) -> bool:
        """Wait until the next sample is due. Returns False if there is nothing to observe any more.

        There is one more sample after the last job, so that consumers see that none is left.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed, self._interval_s)
            is_wanted = not self._is_closed and (bool(self._unfinished) or had_jobs)
            if not is_wanted:
                self._thread = None  # the next job starts another thread
            return is_wanted

    def _tell_consumers(self) -> Sample | None:
        """Take a sample, pass it on and return it. An error ends sampling: returns None."""
        try:
            sample = self._take_sample()
            for consumer in self._consumers:
                consumer.sample(sample)
        except Exception:  # noqa: BLE001 - observing must not harm the jobs
            _log.exception("progress and trace of this pool stop here, because of an error")
            with self._condition:
                self._is_closed = True
                self._thread = None
            return None
        return sample
