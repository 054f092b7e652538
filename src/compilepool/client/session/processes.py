"""What a user asks of a pool's processes: to be there, to go, and how they are."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future

from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.questions import Peeks, Warmth
from compilepool.errors import SupervisorDied
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.observe.counters import Counters
from compilepool.wire.messages import Kind, Message
from compilepool.wire.pool_view import PoolView, WorkerView

if TYPE_CHECKING:  # not before the first result
    from compilepool.observe.observer import RunningJob, Sample
    from compilepool.observe.stats import Memory, PoolStats

_MAX_TRIES = 2
_PEEK_S = 2.0

_log = logging.getLogger(__name__)
_report_log = logging.getLogger("compilepool.observe.stats")


class Staff:
    """The processes of one pool, as its user sees them.

    Args:
        jobs: the pool's jobs, whose lock guards the session.
        counters: their counts.
        start: starts the supervisor, if there is none; called under the lock.
        send: sends it a message, under the lock; False if there is none.
        cancel: takes a job from the table, and from the supervisor; False if it has ended.
        supervisor_pid: tells its PID; 0 if there is none.
        is_in_callback: whether a thread of the pool's own calls.
    """

    def __init__(
        self,
        jobs: UnfinishedCalls,
        counters: Counters,
        start: Callable[[], None],
        send: Callable[[Message], bool],
        cancel: Callable[[int], bool],
        supervisor_pid: Callable[[], int],
        is_in_callback: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._counters = counters
        self._start = start
        self._send = send
        self.cancel_job = cancel
        self._supervisor_pid = supervisor_pid
        self._is_in_callback = is_in_callback
        self._quiesce: Message | None = None
        self._warm_up: Message | None = None
        self._has_reported = False
        self.warmth = Warmth()
        self.peeks = Peeks(jobs, send)
        self.supervisors_lost = 0

    def warm_up(self) -> None:
        """Start everything that a job needs.

        Raises:
            PoolClosed, CompilePoolError: that cannot be done.
        """
        self._expect_warmth()

    def first_worker(self) -> Future[bool]:
        """Start everything that a job needs, and tell when the first job could run.

        Returns:
            The future of `Warmth.expect_first`.

        Raises:
            PoolClosed, CompilePoolError: it cannot be started.
        """
        first = self.warmth.expect_first()
        self._expect_warmth()
        return first

    def _expect_warmth(self) -> Future[bool]:
        with self._jobs.lock:
            self._start()
            self._quiesce = None
            number, told = self.warmth.expect()
            self._warm_up = Message(Kind.WARM_UP, number)
            self._send(self._warm_up)
            return told

    def wait_ready(self, timeout_s: float | None) -> bool:
        """Warm up, and wait for that. False after `timeout_s`, or if the pool quiesces meanwhile.

        Raises:
            CompilePoolError: no worker can be started, or supervisors die while they do so.
            RuntimeError: the pool's own thread, which must not wait, calls.
        """
        if self._is_in_callback():
            raise RuntimeError("wait_ready in a callback of a future would wait for itself")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in range(_MAX_TRIES):
            told = self._expect_warmth()
            try:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                if told.result(left_s):
                    return True
            except (TimeoutError, CancelledError):
                return False
        raise SupervisorDied("the supervisor died while it started workers, and so did the next")

    def quiesce(self, *, keep_warm: bool) -> None:
        """Let jobs end, and then all processes but the supervisor."""
        with self._jobs.lock:
            self._quiesce = Message(Kind.QUIESCE, flag=keep_warm)
            self._warm_up = None
            self._send(self._quiesce)
        self.warmth.quiesced()

    def reload(self) -> None:
        """Have all jobs that have not begun run on a new preload."""
        with self._jobs.lock:
            self._send(Message(Kind.RELOAD))

    def job_submitted(self) -> None:
        """It wakes the pool up. Under the lock."""
        self._quiesce = None

    def supervisor_lost(self, *, was_wanted: bool) -> None:
        """It is dead, or has ended as it should. Under the lock."""
        self.supervisors_lost += not was_wanted
        self.warmth.lost()
        self.peeks.lost()

    def resend(self) -> None:
        """There is a new supervisor: it knows of jobs only. Under the lock."""
        for message in (self._warm_up, self._quiesce):
            if message is not None:
                self._send(message)

    def peek(self, timeout_s: float = _PEEK_S) -> PoolView:
        """How the supervisor sees things. The pool's own thread gets what was told last."""
        return self.peeks.last if self._is_in_callback() else self.peeks.peek(timeout_s)

    def look(self) -> Sample:
        """How things are, to be shown."""
        from compilepool.observe.observer import Sample

        peek = self.peek()
        unfinished = self._counters.unfinished
        running = self._running(peek)
        return Sample(
            time.monotonic(),
            unfinished,
            max(0, unfinished - len(running)),
            [job for job, _ in running],
            lambda: self._memory(peek),
        )

    def workers_of(self, futures: Collection[Future[Any]]) -> dict[Future[Any], WorkerView]:
        """The workers that have the jobs of these futures, of those that run."""
        found: dict[Future[Any], WorkerView] = {}
        for worker in self.peek().workers:
            job = self._jobs.get(worker.job)
            if job is not None and job.future in futures:
                found[job.future] = worker
        return found

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """Those of the jobs of these futures that run."""
        return [job for job, future in self._running(self.peek()) if future in futures]

    def _running(self, peek: PoolView) -> list[tuple[RunningJob, Future[Any]]]:
        """The jobs that run, the oldest first."""
        from compilepool.observe.observer import RunningJob

        now = time.monotonic()
        found: list[tuple[RunningJob, Future[Any]]] = []
        for worker in sorted(peek.workers, key=lambda worker: worker.since):
            job = self._jobs.get(worker.job)
            if job is not None:
                seconds = now - worker.since
                found.append((RunningJob(worker.job, job.name, seconds, worker.phase), job.future))
        return found

    def _memory(self, peek: PoolView) -> Memory:
        from compilepool.observe.stats import memory_of_pool

        pids = [worker.pid for worker in peek.workers]
        return memory_of_pool(self._supervisor_pid(), peek.fork_server, pids)

    def stats(self) -> PoolStats:
        """How things are, and what there was."""
        peek = self.peek()
        return self._stats(peek)

    def report_at_end(self) -> None:
        """Log what the pool has done, once."""
        if self._has_reported or not self._counters.submitted_count:
            return
        self._has_reported = True
        if _log.isEnabledFor(logging.INFO):
            stats = self._stats(self.peeks.last)
            _log.info("the pool has ended: %s", stats.summary)
            _report_log.info("the pool has ended:\n%s", stats)

    def _stats(self, peek: PoolView) -> PoolStats:
        from compilepool.observe.stats import PoolStats, Restarts

        counters = self._counters
        now = time.monotonic()
        memory = self._memory(peek)  # slow, so not under the locks
        # In the order in which `submit` has them, which a signal handler may call meanwhile.
        with self._jobs.lock, counters.lock:
            unfinished = counters.unfinished
            running = min(unfinished, sum(1 for worker in peek.workers if worker.job))
            states = Counter(worker.state for worker in peek.workers)
            first_s = None
            if counters.first_result_at is not None and counters.started_at is not None:
                first_s = counters.first_result_at - counters.started_at
            return PoolStats(
                submitted=counters.submitted_count,
                running=running,
                queued=unfinished - running,
                done=counters.done,
                failed=dict(counters.failed),
                cancelled=counters.cancelled,
                retried=counters.retried,
                queue_seconds=counters.queue_times.quantiles(),
                run_seconds=counters.run_times.quantiles(),
                max_queued=peek.max_queued,
                workers={state: states[state] for state in ("starting", "idle", "busy", "leaving")},
                recycled=peek.workers_recycled,
                restarts=Restarts(self.supervisors_lost, peek.fork_servers_lost, peek.workers_lost),
                memory=memory,
                first_result_seconds=first_s,
                is_quiesced=peek.is_quiesced,
                quiesced_seconds=peek.quiesced_s,
                snapshot_seconds=now - peek.preloaded_at if peek.preloaded_at else None,
            )
