"""Writes the jobs of a pool to a trace file, which Perfetto and chrome://tracing open.

The format is the "Trace Event Format" of Chrome: a JSON array of events, times in microseconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time

from compilepool.errors import CompilePoolError
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.linux.descriptors import close_if_ours, is_open_on, opened_by
from compilepool.linux.proc import boot_id
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.observe.record import usage_of
from compilepool.text import full_text, headline
from compilepool.wire.usage import phases_of_text

if TYPE_CHECKING:
    from compilepool.observe.observer import Sample
    from compilepool.observe.record import JobRecord

_log = QuietLogger(__name__)

_END = b"\n]"
_MEMORY_EVERY_S = 0.5
_MAX_ERROR = 500  # characters
_MAX_TEXT = 20_000  # characters
_NODE = 1 << 23
"""The numbers of a node and of its workers begin at a multiple of it, which no PID is, proc(5)."""


class TraceFile:
    """A file with a JSON array that is complete after every event, even if this process is killed.

    The exception is a kill in the middle of a write: the kernel may end the process between two
    pages of it. Therefore writes are small.

    Args:
        path: the path of the file. An existing file is replaced.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        # O_NONBLOCK, because opening a FIFO without a reader would wait for one.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = os.open(path, flags, 0o666)
        self._opened = opened_by(self._fd)
        self._path = path
        self._is_empty = True
        self._end_offset = 1
        try:
            os.pwrite(self._fd, b"[" + _END, 0)
        except OSError:
            os.close(self._fd)
            raise

    def write(self, events: list[dict[str, Any]]) -> None:
        """Append events to the array.

        Args:
            events: at least one event.

        Raises:
            OSError: the events cannot be written. The array ends before them.
        """
        text = b",\n".join(json.dumps(event).encode() for event in events)
        text = (b"\n" if self._is_empty else b",\n") + text
        if not is_open_on(self._fd, self._opened):
            raise OSError(errno.EBADF, "the program has closed its descriptor", self._path)
        try:
            # One write replaces the end of the array, so that the file always has one.
            if os.pwrite(self._fd, text + _END, self._end_offset) < len(text + _END):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end_offset)
                os.pwrite(self._fd, _END, self._end_offset)
            raise
        self._end_offset += len(text)
        self._is_empty = False

    def close(self) -> None:
        """Close the file."""
        close_if_ours(self._fd, self._opened)


class Trace:
    """The trace of one pool. An `Observer` and a `Consumer`.

    Each worker has a track; if there are several nodes, below that of its node. Jobs are slices on
    it, and phases are slices within jobs. If the file cannot be written any more, a warning is
    logged, and the pool goes on without a trace.

    `compilepool.observe.trace_report` reads traces. What only it needs is in `args`.

    Args:
        path: the path of the file.
        program: the name of the program that has the pool.
        max_workers: how many jobs may run at once.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str, program: str, max_workers: int) -> None:
        self._lock = threading.RLock()
        self._file: TraceFile | None = TraceFile(path)
        self._pid = os.getpid()
        self._tracks: set[tuple[int, int]] = set()
        self._nodes: dict[str, int] = {}
        self._memory_traced_at = 0.0
        self._is_short_of_memory = False
        about = {
            "name": "compilepool",
            "program": program,
            "max_workers": max_workers,
            "boot": boot_id(),
            "epoch_us": _us(_epoch()),
        }
        self._write([{"ph": "M", "name": "process_name", "pid": self._pid, "args": about}])

    def submitted(self, id: int, name: str) -> None:
        """Implements `Observer.submitted`: a job is traced when it ends."""

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """Implements `Observer.ended`."""
        usage = usage_of(record)
        args: dict[str, Any] = {"job": id, "queued": _us(record.queued - _epoch())}
        if record.shared:
            args["shared"] = record.shared
        if cancelled:
            args["cancelled"] = True
        if error is not None:
            args["error"] = headline(error)[:_MAX_ERROR]
            args["error_text"] = full_text(error)[:_MAX_TEXT]
        if not usage.started:
            at = {"ts": _us(time.monotonic()), "pid": self._pid}
            self._write([{"ph": "i", "s": "p", "cat": "job", "name": name, **at, "args": args}])
            return
        args |= {
            "queue_seconds": record.queue_seconds,
            "cpu_seconds": usage.cpu_s,
            "peak_memory": usage.peak_bytes,
        }
        if usage.attempts > 1:
            args["attempts"] = usage.attempts
        track, events = self._track(record.node, usage.pid)
        begin, end = usage.started, max(usage.started, usage.ended)
        events.append(_slice(name, "job", begin, end, track, args))
        known = phases_of_text(usage.phases)
        phases = [(phase, since) for phase, since in known if begin <= since <= end]
        ends = [since for _, since in phases[1:]] + [end]
        for (phase, since), until in zip(phases, ends, strict=False):
            events.append(_slice(phase, "phase", since, max(since, until), track))
        if isinstance(error, CompilePoolError):
            what = type(error).__name__
            events.append({"ph": "i", "s": "t", "name": what, "ts": _us(end), **track})
        self._write(events)

    def sample(self, sample: Sample) -> None:
        """Implements `Consumer.sample`."""
        counts = {"queued": sample.queued, "running": len(sample.running)}
        events = [self._counter("jobs", sample.time, counts)]
        if sample.is_short_of_memory != self._is_short_of_memory:
            self._is_short_of_memory = sample.is_short_of_memory
            held = {"yes": int(sample.is_short_of_memory)}
            events.append(self._counter("short of memory", sample.time, held))
        if sample.time >= self._memory_traced_at + _MEMORY_EVERY_S or not sample.unfinished:
            self._memory_traced_at = sample.time
            memory = {name: size / (1 << 20) for name, size in sample.memory()._asdict().items()}
            events.append(self._counter("memory (PSS, MiB)", sample.time, memory))
        self._write(events)

    def close(self) -> None:
        """Implements `Consumer.close`."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.close()

    def abandon(self) -> None:
        """Implements `Observer.abandon`: closes the descriptor. The file itself is the parent's."""
        self._lock = threading.RLock()
        self.close()

    def _track(self, node: str, worker: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """The track of a worker, and the events that introduce what is new of it."""
        events = []
        process, first = self._pid, 0
        if node:
            is_new = node not in self._nodes
            first = process = self._nodes.setdefault(node, (len(self._nodes) + 1) * _NODE)
            events += [_named_process(process, f"node {node}")] if is_new else []
        track = {"pid": process, "tid": first + worker}
        if (process, worker) not in self._tracks:
            self._tracks.add((process, worker))
            name = {"name": f"worker {worker}"}
            events.append({"ph": "M", "name": "thread_name", "args": name, **track})
        return track, events

    def _counter(self, name: str, at: float, values: dict[str, Any]) -> dict[str, Any]:
        return {"ph": "C", "name": name, "ts": _us(at), "pid": self._pid, "args": values}

    def _write(self, events: list[dict[str, Any]]) -> None:
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(events)
            except (OSError, ValueError) as error:
                _log.warning("the trace ends here, because it cannot be written: %s", error)
                self.close()


def _named_process(pid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _slice(
    name: str,
    category: str,
    begin: float,
    end: float,
    track: dict[str, int],
    args: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": _us(begin),
        "dur": _us(end) - _us(begin),
        **track,
        "args": args or {},
    }


def _epoch() -> float:
    """Seconds to add to `time.monotonic()` for `time.time()`."""
    return time.time() - time.monotonic()


def _us(seconds: float) -> int:
    """Convert seconds to whole microseconds.

    Fractions would let slices of a track overlap by nanoseconds. Rounding all times down keeps
    their order.
    """
    return int(seconds * 1e6)
