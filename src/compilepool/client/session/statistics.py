"""How a pool is doing: what runs, and what it has done."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future

from compilepool.client.connection.sharing import NAME_LENGTH
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.questions import Views
from compilepool.client.session.sending import SupervisorLink
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.observe.counters import Counters
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.wire.pool_view import PoolView, WorkerView

if TYPE_CHECKING:  # not loaded before the first result
    from compilepool.observe.observer import RunningJob, Sample
    from compilepool.observe.stats import Memory, PoolStats, SharedStats

_log = QuietLogger(__name__)
_report_log = QuietLogger("compilepool.observe.stats")


class Statistics:
    """Joins what the supervisor sees with what the client has counted.

    Args:
        calls: the unfinished calls.
        counters: the counts of the pool's jobs.
        views: asks the supervisor.
        link: the way to the supervisor.

    Attributes:
        supervisors_lost: how many supervisors have died before they should.
    """

    def __init__(
        self, calls: UnfinishedCalls, counters: Counters, views: Views, link: SupervisorLink
    ) -> None:
        self._calls = calls
        self._counters = counters
        self._views = views
        self._link = link
        self._has_reported = False
        self.supervisors_lost = 0

    def sample(self) -> Sample:
        """How the pool is now, for those who show or trace it."""
        from compilepool.observe.observer import Sample

        view = self._views.view()
        unfinished = self._counters.unfinished
        running = self._running(view)
        return Sample(
            time.monotonic(),
            unfinished,
            max(0, unfinished - len(running)),
            [job for job, _ in running],
            lambda: self._memory(view),
            view.is_short_of_memory,
        )

    def workers_of(self, futures: Collection[Future[Any]]) -> dict[Future[Any], WorkerView]:
        """The workers of these futures' jobs; a job that does not run is left out."""
        found: dict[Future[Any], WorkerView] = {}
        for worker in self._views.view().workers:
            call = self._calls.get(worker.job)
            if call is not None and call.future in futures:
                found[call.future] = worker
        return found

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """The running jobs of these futures, the oldest first."""
        return [job for job, future in self._running(self._views.view()) if future in futures]

    def stats(self) -> PoolStats:
        """How the pool is now, and what it has done."""
        return self._stats(self._views.view())

    def report_at_end(self) -> None:
        """Log what the pool has done, once."""
        if self._has_reported or not self._counters.submitted_count:
            return
        self._has_reported = True
        if _log.is_enabled_for(logging.INFO):
            stats = self._stats(self._views.last)
            _log.info("the pool has ended: %s", stats.summary)
            _report_log.info("the pool has ended:\n%s", stats)

    def _running(self, view: PoolView) -> list[tuple[RunningJob, Future[Any]]]:
        """The running jobs with their futures, the oldest first."""
        from compilepool.observe.observer import RunningJob

        now = time.monotonic()
        found: list[tuple[RunningJob, Future[Any]]] = []
        for worker in sorted(view.workers, key=lambda worker: worker.since):
            call = self._calls.get(worker.job)
            if call is not None:
                seconds = now - worker.since
                job = RunningJob(worker.job, call.name, seconds, worker.phase)
                found.append((job, call.future))
        return found

    def _memory(self, view: PoolView) -> Memory:
        from compilepool.observe.stats import memory_of_pool

        supervisor = self._link.supervisor
        pids = [worker.pid for worker in view.workers]
        return memory_of_pool(supervisor.pid if supervisor else 0, view.fork_server, pids)

    def _shared(self, view: PoolView) -> SharedStats | None:
        from compilepool.observe.stats import SharedStats

        if not view.identity:
            return None
        supervisor = self._link.supervisor
        return SharedStats(
            view.identity[:NAME_LENGTH],
            supervisor.pid if supervisor else 0,
            view.clients,
            view.joined,
            view.reused,
        )

    def _stats(self, view: PoolView) -> PoolStats:
        from compilepool.observe.stats import PoolStats, Restarts

        counters = self._counters
        now = time.monotonic()
        memory = self._memory(view)  # slow, so not under the locks
        # In the order in which `submit` takes them; a signal handler may call that meanwhile.
        with self._calls.lock, counters.lock:
            unfinished = counters.unfinished
            running = min(unfinished, sum(1 for worker in view.workers if worker.job))
            states = Counter(worker.state for worker in view.workers)
            return PoolStats(
                submitted=counters.submitted_count,
                running=running,
                queued=unfinished - running,
                done=counters.done,
                failed=dict(counters.failed),
                cancelled=counters.cancelled,
                retried=counters.retried,
                joined=counters.joined,
                reused=counters.reused,
                queue_seconds=counters.queue_times.quantiles(),
                run_seconds=counters.run_times.quantiles(),
                peak_memory=counters.peak_memory,
                max_queued=view.max_queued,
                workers={state: states[state] for state in ("starting", "idle", "busy", "leaving")},
                recycled=view.workers_recycled,
                restarts=Restarts(self.supervisors_lost, view.fork_servers_lost, view.workers_lost),
                memory=memory,
                first_result_seconds=counters.first_result_s,
                is_quiesced=view.is_quiesced,
                quiesced_seconds=view.quiesced_s,
                snapshot_seconds=now - view.preloaded_at if view.preloaded_at else None,
                shared=self._shared(view),
            )
