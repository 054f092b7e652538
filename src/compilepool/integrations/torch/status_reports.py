"""Reports slow jobs in torch's structured trace."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from torch._guards import CompileContext
from torch._inductor import config

from compilepool.client.future import CompileFuture
from compilepool.client.internals import workers_of
from compilepool.client.pool import CompilePool
from compilepool.wire.pool_view import WorkerView

_INTERVAL = "TORCHINDUCTOR_COMPILE_WORKER_WATCHDOG_INTERVAL"

_PHASES = {"cache look-up": "querying_cache", "compile": "compiling", "ptxas": "compiling"}
"""torch's name of each phase that a job reports: readers of the trace know torch's names."""

_log = logging.getLogger(__name__)


class StatusReports:
    """Writes an artifact for each slow job into torch's structured trace, at regular intervals.

    A job is slow if it was submitted more than one interval ago. The watchdog in the sidecar of
    torch 2.14 and later does the same. There is a thread while there are jobs.

    Args:
        pool: the pool that runs the jobs.
        trace: torch's `trace_structured`.
    """

    def __init__(self, pool: CompilePool, trace: Callable[..., None]) -> None:
        self._pool = pool
        self._trace = trace
        self._interval_s = _interval_s()
        self._condition = threading.Condition()
        self._jobs: dict[CompileFuture[Any], Any] = {}
        self._has_thread = False

    def job_submitted(self, job: CompileFuture[Any]) -> None:
        """Watch a job. Its compile id is that of the calling thread."""
        if self._interval_s <= 0:
            return
        compile_id = CompileContext.current_compile_id()
        with self._condition:
            self._jobs[job] = compile_id
            if not self._has_thread:
                self._has_thread = True
                thread = threading.Thread(target=self._run, name="compilepool status", daemon=True)
                thread.start()
        job.add_done_callback(self._job_ended)

    def close(self) -> None:
        """Watch no job any more."""
        with self._condition:
            self._jobs.clear()
            self._condition.notify_all()

    def _job_ended(self, job: Future[Any]) -> None:
        assert isinstance(job, CompileFuture)
        with self._condition:
            self._jobs.pop(job, None)
            if not self._jobs:
                self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                has_ended = self._condition.wait_for(lambda: not self._jobs, self._interval_s)
                if has_ended:
                    self._has_thread = False
                    return
                jobs = dict(self._jobs)
            try:
                self._report(jobs)
            except Exception:  # noqa: BLE001 - the next report may succeed
                _log.warning("slow jobs cannot be reported", exc_info=True)

    def _report(self, jobs: dict[CompileFuture[Any], Any]) -> None:
        now = time.time()
        slow = {
            job: now - job.record.queued
            for job in jobs
            if now - job.record.queued >= self._interval_s
        }
        if not slow:
            return
        workers = workers_of(self._pool, slow)
        for job, elapsed_s in slow.items():
            status = {"job_id": id(job), "name": job.name, "elapsed_s": round(elapsed_s, 1)}
            self._report_job(status | _phase(workers.get(job)), jobs[job])

    def _report_job(self, status: dict[str, Any], compile_id: Any) -> None:
        record = {**status, "compile_id": str(compile_id) if compile_id else None}
        self._trace(
            "artifact",
            metadata_fn=lambda: {"name": "compile_worker_status", "encoding": "json"},
            payload_fn=lambda: json.dumps(record),
            compile_id=compile_id,
            expect_trace_id=False,
            suppress_context=True,
            record_logging_overhead=False,
        )


def _interval_s() -> float:
    """Return the interval of torch's config, in seconds; 0: no reports, as in a torch without the
    option.

    The environment variable has precedence, because torch's sidecar reads it when it starts.
    """
    configured = getattr(config, "compile_worker_watchdog_interval_seconds", None)
    return 0.0 if configured is None else float(os.environ.get(_INTERVAL, configured))


def _phase(worker: WorkerView | None) -> dict[str, Any]:
    if worker is None:
        return {"phase": "queued"}
    phase, since = "running", worker.since
    if worker.phase:
        phase, since = _PHASES.get(worker.phase, "running"), worker.phase_since
    seconds = round(time.monotonic() - since, 1)
    return {"phase": phase, "phase_elapsed_s": seconds, "worker_pid": worker.pid}
