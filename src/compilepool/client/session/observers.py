"""Makes the observers of a pool's jobs: counts and log; on demand progress, trace and report."""

from __future__ import annotations

import os
from collections.abc import Callable

from compilepool.client.connection.setup import max_workers_of
from compilepool.client.connection.sharing import own_name
from compilepool.client.options import PoolOptions
from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.counters import Counters
from compilepool.observe.job_log import JobLog
from compilepool.observe.observer import Observer

if TYPE_CHECKING:
    from compilepool.observe.observer import Consumer, Sample
    from compilepool.observe.sampler import Sampler

_SAMPLE_S = 0.2


class Observers:
    """The observers of one pool.

    Args:
        options: the pool's.
        is_of_use: whether the pool may ever have jobs; if not, nothing is shown or traced.

    Attributes:
        counters: the counts.
        all: all observers.

    Raises:
        OSError: the trace cannot be written.
    """

    def __init__(self, options: PoolOptions, *, is_of_use: bool) -> None:
        # Few pools have progress or a trace, so these are not imported at the top: rich is large.
        self.counters = Counters()
        self.all: list[Observer] = [self.counters, JobLog()]
        self._consumers: list[Consumer] = []
        self._sampler: Sampler | None = None
        if not is_of_use:
            return
        if options.progress is not False:
            from compilepool.observe.progress import PoolProgress

            shown = PoolProgress(None if options.progress is True else options.progress)
            self.all.append(shown)
            self._consumers.append(shown)
        if options.trace is not None or options.report is not None:
            from compilepool.observe.trace import Trace

            path = os.path.abspath(options.trace or f"{os.fspath(options.report or '')}.json")
            trace = Trace(path, own_name(), max_workers_of(options))
            self.all.append(trace)
            self._consumers.append(trace)
            if options.report is not None:
                from compilepool.observe.report_at_end import ReportAtEnd

                # After the trace, which it reads when that is closed.
                self._consumers.append(ReportAtEnd(path, os.path.abspath(options.report)))

    def sample(self, look: Callable[[], Sample]) -> None:
        """Have `look` called again and again while there are jobs, if there is a use for it."""
        if self._consumers:
            from compilepool.observe.sampler import Sampler

            self._sampler = Sampler(look, self._consumers, _SAMPLE_S)
            self.all.append(self._sampler)

    def close(self) -> None:
        """The pool has ended. May be called twice."""
        if self._sampler is not None:
            self._sampler.close()
            return
        for consumer in self._consumers:
            consumer.close()
