"""torch's wait counters of a pool, named as in torch/_inductor/compile_worker/subproc_pool.py."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from torch.monitor import _WaitCounter

_PREFIX = "pytorch.wait_counter.subproc_pool."


class WaitCounters:
    """The wait counters of one pool.

    - `running` counts while the pool exists.
    - `job` counts for each job until it has ended.
    - `first_job` counts for the first job, and for the first job after each `quiesce`.
    - `quiesced` counts from each `quiesce` to the next job.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = _begin("running")
        self._quiesced: Any = None
        self._is_first_job = True
        self._is_closed = False

    def job_submitted(self, future: Future[Any]) -> None:
        """Count a job until its future is done."""
        counters = [_begin("job")]
        with self._lock:
            _end(self._quiesced)
            self._is_first_job |= self._quiesced is not None
            self._quiesced = None
            if self._is_first_job:
                counters.append(_begin("first_job"))
            self._is_first_job = False
        future.add_done_callback(_end_all(counters))

    def quiesced(self) -> None:
        """Count `quiesced` until the next job."""
        with self._lock:
            if self._quiesced is None and not self._is_closed:
                self._quiesced = _begin("quiesced")

    def closed(self) -> None:
        """Stop `running` and `quiesced`: the pool was shut down."""
        with self._lock:
            self._is_closed = True
            _end(self._running)
            _end(self._quiesced)
            self._running = self._quiesced = None


def _begin(name: str) -> Any:
    tracker = _WaitCounter(_PREFIX + name).guard()
    tracker.__enter__()
    return tracker


def _end(tracker: Any) -> None:
    if tracker is not None:
        tracker.__exit__()


def _end_all(trackers: list[Any]) -> Callable[[object], None]:
    def end(_future: object) -> None:
        for tracker in trackers:
            tracker.__exit__()

    return end
