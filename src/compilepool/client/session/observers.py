"""Who observes a pool's jobs: counts, log, and what its options ask for."""

from __future__ import annotations

import os
from collections.abc import Callable

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
        look: looks at the pool; called while there are jobs, if anything is to be shown or traced.

    Raises:
        OSError: the trace cannot be written.
    """

    def __init__(self, options: PoolOptions, look: Callable[[], Sample]) -> None:
        # What few pools have is not imported at the top: some of it loads rich.
        self.counters = Counters()
        self.all: list[Observer] = [self.counters, JobLog()]
        consumers: list[Consumer] = []
        self._sampler: Sampler | None = None
        if options.progress is not False:
            from compilepool.observe.progress import PoolProgress

            shown = PoolProgress(None if options.progress is True else options.progress)
            self.all.append(shown)
            consumers.append(shown)
        if options.trace is not None:
            from compilepool.observe.trace import Trace

            trace = Trace(os.path.abspath(options.trace))
            self.all.append(trace)
            consumers.append(trace)
        if consumers:
            from compilepool.observe.sampler import Sampler

            self._sampler = Sampler(look, consumers, _SAMPLE_S)
            self.all.append(self._sampler)

    def close(self) -> None:
        """The pool has ended. May be called twice."""
        if self._sampler is not None:
            self._sampler.close()
