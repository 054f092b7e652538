"""The jobs of a program on this node, in the pool of this node."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from concurrent.futures import Future

from compilepool.client.future import CompileFuture
from compilepool.client.job_dump import JobDump
from compilepool.client.options import PoolOptions
from compilepool.client.session.outcomes import PackedOutcome
from compilepool.client.session.session import Session
from compilepool.errors import CompilePoolError
from compilepool.integrations.ray.messages import (
    Cancel,
    EndedJob,
    NodeSample,
    Packed,
    PackedJob,
    Report,
    RunningThere,
)
from compilepool.light_typing import Any
from compilepool.linux.free_memory import MachineMemory
from compilepool.observe.record import usage_of
from compilepool.text import describe

_LARGE = 32 * 1024
"""Bytes of a result. A larger one waits until the program fetches it."""
_REPORT_BYTES = 64 * 1024
"""Ray puts what is smaller than 100 KiB into its reply, and not into its store
(`max_direct_call_object_size`)."""
_MEMORY_S = 0.1
"""How old a measurement of free memory may be."""
_STARTS_WAIT_S = 0.02
"""Most jobs end sooner after their start than that. Then their start needs no report."""


class NodeJobs:
    """The jobs, by the program's numbers. All methods but those that wait run in the event loop.

    Args:
        options: the pool's.
        startup: what every worker starts with.
        loop: the event loop.

    Attributes:
        session: the pool.
        workers: how many jobs run at once.
        large: the large results that nobody has fetched.
    """

    def __init__(
        self, options: PoolOptions, startup: Packed | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self.session = Session(
            options,
            startup=None if startup is None else startup.payload,
            on_start=lambda future: self._hear(future, False),
        )
        self.workers = self.session.max_workers
        self.large: dict[int, Packed] = {}
        self._futures: dict[int, CompileFuture[Any]] = {}
        self._ids: dict[Future[Any], int] = {}
        self._heard: deque[tuple[Future[Any], bool]] = deque()
        self._is_woken = False
        self._started: list[int] = []
        self._ended: deque[EndedJob] = deque()
        self._news = asyncio.Event()
        self._memory = MachineMemory()
        self._free = 0
        self._seen_at = 0.0

    def take(self, parcel: list[PackedJob | Cancel]) -> None:
        """Take jobs, and take back others."""
        for item in parcel:
            if isinstance(item, Cancel):
                self._cancel(item.id)
            else:
                self._submit(item)

    async def report(self, patience_s: float) -> Report:
        """Wait until there is something to say; not longer than `patience_s` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), patience_s)
        ended: list[EndedJob] = []
        size = 0
        while self._ended and (not ended or size + _size(self._ended[0]) <= _REPORT_BYTES):
            ended.append(self._ended.popleft())
            size += _size(ended[-1])
        over = {each.id for each in ended}
        started = [id for id in self._started if id not in over]
        self._started = []
        if not self._ended:
            self._news.clear()
        return Report(started, ended, self.free_memory())

    def free_memory(self) -> int:
        """The bytes that jobs may still take."""
        now = time.monotonic()
        if now - self._seen_at > _MEMORY_S:
            self._seen_at, free = now, self._memory.free()
            self._free = sys.maxsize if free is None else max(0, free)
        return self._free

    def sample(self) -> NodeSample:
        """What runs now. Waits for the supervisor."""
        ids = dict(self._ids)
        sample = self.session.statistics.sample()
        workers = self.session.statistics.workers_of(ids.keys())
        running = [
            RunningThere(ids[future], sample.time - worker.since, worker.phase)
            for future, worker in workers.items()
        ]
        running.sort(key=lambda job: -job.seconds)
        return NodeSample(running, sample.memory(), sample.is_short_of_memory)

    def dump(self, id: int, timeout_s: float) -> JobDump | None:
        """As `CompilePool.dump`; None if the job is not here. Waits for the supervisor."""
        future = self._futures.get(id)
        return None if future is None else self.session.dumps.dump(future, timeout_s)

    # What concerns the pool as a whole; see the methods of `CompilePool`.

    def warm_up(self) -> None:
        """As `CompilePool.warm_up`."""
        self.session.warm_up()

    def quiesce(self, keep_warm: bool) -> None:
        """As `CompilePool.quiesce`."""
        self.session.processes.quiesce(keep_warm=keep_warm)

    def reload(self) -> None:
        """As `CompilePool.reload`."""
        self.session.processes.reload()

    def forget(self, key: str) -> None:
        """As `CompilePool.forget`."""
        self.session.forget(key)

    def terminate_workers(self) -> None:
        """As `CompilePool.terminate_workers`."""
        self.session.link.terminate_workers()

    def _submit(self, job: PackedJob) -> None:
        try:
            future = self.session.submit_packed(job.name, job.call.payload, job.terms)
        except Exception as error:  # noqa: BLE001 - the program must hear of it
            if not isinstance(error, CompilePoolError):
                error = CompilePoolError(f"job {job.name!r} could not be begun: {describe(error)}")
            self._tell(EndedJob(job.id, [], "", "", error=error))
            return
        self._futures[job.id] = future
        self._ids[future] = job.id
        future.add_done_callback(lambda future: self._hear(future, True))

    def _cancel(self, id: int) -> None:
        self.large.pop(id, None)
        if (future := self._futures.pop(id, None)) is not None:
            del self._ids[future]
            future.cancel()

    def _hear(self, future: Future[Any], has_ended: bool) -> None:
        """A job has begun or ended. Any thread."""
        self._heard.append((future, has_ended))
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the actor ends
                self._loop.call_soon_threadsafe(self._read)

    def _read(self) -> None:
        self._is_woken = False
        while self._heard:
            future, has_ended = self._heard.popleft()
            id = self._ids.get(future)
            if id is None:
                continue  # the program does not want it any more
            if has_ended:
                del self._ids[future], self._futures[id]
                self._tell(self._end_of(id, future))
            else:
                if not self._started:
                    self._loop.call_later(_STARTS_WAIT_S, self._news.set)
                self._started.append(id)

    def _tell(self, ended: EndedJob) -> None:
        self._ended.append(ended)
        self._news.set()

    def _end_of(self, id: int, future: Any) -> EndedJob:
        record = future.record
        ended = EndedJob(id, list(usage_of(record)), record.log, record.shared)
        if future.cancelled():
            text = f"job {future.name!r} was cancelled on its node, which this program did not ask"
            return ended._replace(error=CompilePoolError(text))
        error = future.exception()
        if error is not None:
            if not isinstance(error, CompilePoolError):
                error = CompilePoolError(f"job {future.name!r} has failed: {describe(error)}")
            return ended._replace(error=error)
        outcome: PackedOutcome = future.result()
        result = Packed.of(outcome.payload)
        ended = ended._replace(outcome=int(outcome.outcome))
        if len(result.body) <= _LARGE:
            return ended._replace(result=result)
        self.large[id] = result
        return ended._replace(size=len(result.body))


def _size(ended: EndedJob) -> int:
    """The bytes of a job's end in a report, nearly."""
    size = 500 + len(ended.log) + (len(ended.result.body) if ended.result is not None else 0)
    if ended.error is not None:
        size += sum(len(value) for value in vars(ended.error).values() if isinstance(value, str))
    return size
