"""The actor of a node: takes jobs from the program, and tells it what becomes of them.

Ray pickles this class by its name, so the node runs the code that it has itself, and `facts` says
which that is. The actor never unpickles what is the user's. Its supervisor holds a pidfd of it, and
so ends when it ends, however it ends. It ends with its raylet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from compilepool.integrations.ray.node.jobs import NodeJobs
from compilepool.integrations.ray.node.raylet import end_with_raylet
from compilepool.integrations.ray.sameness import facts

if TYPE_CHECKING:
    from compilepool.client.job_dump import JobDump
    from compilepool.client.options import PoolOptions
    from compilepool.integrations.ray.messages import (
        Cancel,
        NodeSample,
        Opened,
        Packed,
        PackedJob,
        Report,
    )
    from compilepool.observe.stats import PoolStats

T = TypeVar("T")

_SILENCE_S = 5.0
"""After so long a report is made even if there is nothing to say: the program then knows that this
actor is alive."""


class NodeActor:
    """One for each node. All methods run in the actor's event loop."""

    def __init__(self) -> None:
        end_with_raylet()
        self._jobs: NodeJobs | None = None
        self._next_parcel = 1
        self._early: dict[int, list[PackedJob | Cancel]] = {}

    async def facts(self) -> dict[str, str]:
        """What this node has; see `sameness.facts`."""
        return facts()

    async def clock(self) -> float:
        """This node's `time.monotonic()`."""
        return time.monotonic()

    async def open(self, options: PoolOptions, startup: Packed | None) -> Opened:
        """Make the pool. Its processes start with the first job.

        Args:
            options: the pool's.
            startup: what every worker starts with.
        """
        from compilepool.integrations.ray.messages import Opened

        self._jobs = NodeJobs(options, startup, asyncio.get_running_loop())
        return Opened(self._jobs.workers, self._jobs.free_memory())

    async def give(self, number: int, parcel: list[PackedJob | Cancel]) -> None:
        """Take jobs, and take back others.

        Args:
            number: 1 for the first parcel, and so on. Ray may deliver a large one late; those
                behind it wait for it.
            parcel: what there is to do, in order.
        """
        self._early[number] = parcel
        while self._next_parcel in self._early:
            self._opened.take(self._early.pop(self._next_parcel))
            self._next_parcel += 1

    async def report(self) -> Report:
        """Wait until there is something to say, and say it. One call at a time."""
        return await self._opened.report(_SILENCE_S)

    async def fetch(self, id: int) -> Packed | None:
        """The large result of a job, once; None if the job was cancelled meanwhile."""
        return self._opened.large.pop(id, None)

    async def sample(self) -> NodeSample:
        """What runs now."""
        return await self._in_thread(self._opened.sample)

    async def stats(self) -> PoolStats:
        """As `CompilePool.stats`."""
        return await self._in_thread(self._opened.session.statistics.stats)

    async def dump(self, id: int, timeout_s: float) -> JobDump | None:
        """As `CompilePool.dump`; None if the job is not here."""
        return await self._in_thread(lambda: self._opened.dump(id, timeout_s))

    async def wait_ready(self, timeout_s: float | None) -> bool:
        """As `CompilePool.wait_ready`."""
        return await self._in_thread(lambda: self._opened.session.wait_ready(timeout_s))

    async def control(self, what: str, *arguments: Any) -> None:
        """Do what concerns the pool as a whole: a method of `NodeJobs`, by name."""
        getattr(self._opened, what)(*arguments)

    async def close(self) -> None:
        """End the pool; returns when its processes are gone."""
        if self._jobs is not None:
            await self._in_thread(lambda: self._opened.session.shutdown(wait=True))

    @property
    def _opened(self) -> NodeJobs:
        assert self._jobs is not None, "the program opens the pool first"
        return self._jobs

    def _in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        """Run what waits, without holding up the event loop."""
        return asyncio.get_running_loop().run_in_executor(None, call)
