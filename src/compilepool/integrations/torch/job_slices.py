"""Shows each job in torch's structured trace, which TORCH_TRACE switches on and tlparse reads.

A job is a slice among the chromium events of the trace, on the track of its worker. torch's own
events are on track 0 (`ChromiumEventLogger` in torch/_dynamo/utils.py). The report of a job that
failed is an artifact. tlparse tells ranks apart by the process of each event: it puts the rank
there (`read_chromium_events_with_pid` in its src/lib.rs).
"""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from torch._guards import CompileContext, compile_context

from compilepool.client.future import CompileFuture
from compilepool.errors import CompilePoolError, PoolClosed
from compilepool.text import headline

_CATEGORY = "compile_worker"
_PROCESS = {"pid": 0}  # as all of torch's own events have it
_TRACE_LOG = logging.getLogger("torch.__trace")  # of torch/_logging/_internal.py
_MAX_ERROR = 500  # characters
_MAX_FILE_NAME = 120


class JobSlices:
    """Writes a slice for each job of a pool into torch's structured trace, when the job has ended.

    Args:
        trace: torch's `trace_structured`.
    """

    def __init__(self, trace: Callable[..., None]) -> None:
        self._trace = trace
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        """The end of the last slice on the track of each worker, in microseconds."""

    def job_submitted(self, job: CompileFuture[Any]) -> None:
        """Trace a job when it has ended. Its compile id is that of the calling thread."""
        if _TRACE_LOG.handlers:
            job.add_done_callback(functools.partial(self._job_ended, _copy_of_context()))

    def _job_ended(self, context: CompileContext | None, job: Future[Any]) -> None:
        assert isinstance(job, CompileFuture)
        error = None if job.cancelled() else job.exception()
        with self._lock, compile_context(context):
            for event in self._events(job, error, context):
                self._write("chromium_event", event)
            if isinstance(error, CompilePoolError) and not isinstance(error, PoolClosed):
                name = re.sub(r"[^\w.-]", "_", job.name)[:_MAX_FILE_NAME]
                artifact = {"name": f"compile_worker_failure_{name}", "encoding": "string"}
                self._write("artifact", _report(error), artifact)

    def _events(
        self, job: CompileFuture[Any], error: BaseException | None, context: CompileContext | None
    ) -> Iterator[dict[str, Any]]:
        record = job.record
        if record.started is None or record.ended is None:
            return
        args = _arguments(job, error, context)
        track = {**_PROCESS, "tid": record.worker_pid}
        if record.shared == "reused":  # it was compiled long ago, perhaps in another program
            yield _instant(job.name, _us(record.queued), {**_PROCESS, "tid": 0}, args)
            return
        if record.worker_pid not in self._ends:
            name = {"name": "compile worker"}  # Perfetto adds the number
            yield {"ph": "M", "name": "thread_name", "args": name, **track}
        # Perfetto drops a slice that overlaps another of its track. Times of different jobs do so
        # by microseconds: each record has them by `time.time()`, which it computes for itself.
        begin = max(_us(record.started), self._ends.get(record.worker_pid, 0))
        end = max(begin, _us(record.ended))
        self._ends[record.worker_pid] = end
        yield _slice(job.name, begin, end, track, args)
        for phase in record.phases:
            since = min(max(begin, _us(phase.started)), end)
            until = min(max(since, _us(phase.started + phase.seconds)), end)
            yield _slice(phase.name, since, until, track, {})
        if error is not None:
            yield _instant(type(error).__name__, end, track, {})

    def _write(self, kind: str, payload: object, metadata: dict[str, str] | None = None) -> None:
        self._trace(
            kind,
            metadata_fn=lambda: metadata or {},
            payload_fn=lambda: payload,
            expect_trace_id=False,
            record_logging_overhead=False,
        )


def _copy_of_context() -> CompileContext | None:
    """Return the compile id of the calling thread and its attempt, as they are now."""
    current = CompileContext.try_get()
    if current is None:
        return None
    context = CompileContext(current.compile_id)
    context.attempt = current.attempt
    return context


def _arguments(
    job: CompileFuture[Any], error: BaseException | None, context: CompileContext | None
) -> dict[str, Any]:
    record = job.record
    args: dict[str, Any] = {
        "worker_pid": record.worker_pid,
        "queue_seconds": round(record.queue_seconds, 6),
        "cpu_seconds": round(record.cpu_seconds, 6),
        "peak_memory": record.peak_memory,
    }
    if context is not None and context.compile_id is not None:
        args["compile_id"] = str(context.compile_id)
    if record.attempts > 1:
        args["attempts"] = record.attempts
    if record.shared:
        args["shared"] = record.shared
    if error is not None:
        args["error"] = headline(error)[:_MAX_ERROR]
    return args


def _report(error: CompilePoolError) -> str:
    """Return the report of a failed job, and all stacks below it: the report has the most important
    frames only.
    """
    parts = [str(error)]
    for title, name in [("Native", "native_traceback"), ("Python", "python_traceback")]:
        if text := getattr(error, name, ""):
            parts += ["", f"{title} stacks of all threads:", "", text]
    lines = "\n".join(parts).splitlines()  # tlparse knows no other ends of lines than "\n"
    return "\n".join(lines).encode(errors="replace").decode()


def _slice(
    name: str, begin: int, end: int, track: dict[str, int], args: dict[str, Any]
) -> dict[str, Any]:
    times = {"ts": begin, "dur": end - begin}
    return {"ph": "X", "name": name, "cat": _CATEGORY, **times, **track, "args": args}


def _instant(name: str, at: int, track: dict[str, int], args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "i", "s": "t", "name": name, "cat": _CATEGORY, "ts": at, **track, "args": args}


def _us(seconds: float) -> int:
    """Convert seconds to whole microseconds, always down, so that their order stays."""
    return int(seconds * 1e6)
