"""How a pool over several nodes is doing: asks all nodes at once, and joins their answers."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from compilepool.client.job_dump import JobDump
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.errors import PoolClosed
from compilepool.integrations.ray.dispatcher import Dispatcher
from compilepool.integrations.ray.link import NodeLink
from compilepool.integrations.ray.messages import NodeSample
from compilepool.observe.counters import Counters
from compilepool.observe.observer import RunningJob, Sample
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.observe.stats import Memory, PoolStats, Restarts

_ANSWER_S = 2.0
_SAMPLED_A_SECOND = 100
"""The most nodes that are asked in a second: with more of them, samples are older."""
_NEWEST_S = 0.1
_SETTLE_S = 0.02

_log = QuietLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NodeStats:
    """A node, in `ClusterStats`.

    Attributes:
        name: its name, as in records.
        workers: how many jobs may run there at once.
        pool: the statistics of its pool, as that counts; None if it has not answered in time.
    """

    name: str
    workers: int
    pool: PoolStats | None

    def __str__(self) -> str:
        if self.pool is None:
            return f"{self.name}: has not answered"
        return f"{self.name}: {self.workers} workers at most; {self.pool.summary}"


@dataclasses.dataclass(frozen=True)
class ClusterStats(PoolStats):
    """`PoolStats` of all nodes together.

    Processes and memory are sums; `max_queued` is the most jobs that have waited for a node. The
    age of the preload, and what is shared, are known only for each node.

    Attributes:
        nodes: the nodes that are up.
        nodes_lost: how many nodes, or actors, were lost.
    """

    nodes: tuple[NodeStats, ...] = ()
    nodes_lost: int = 0

    def __str__(self) -> str:
        lines = [super().__str__(), f"nodes     {len(self.nodes)}; {self.nodes_lost} lost"]
        return "\n".join([*lines, *(f"          {node}" for node in self.nodes)])


class Observing:
    """See the module.

    Args:
        ray: the module.
        calls: the unfinished calls.
        counters: the counts of the pool's jobs.
        dispatcher: has the links.
    """

    def __init__(
        self, ray: Any, calls: UnfinishedCalls, counters: Counters, dispatcher: Dispatcher
    ) -> None:
        self._ray = ray
        self._calls = calls
        self._counters = counters
        self._dispatcher = dispatcher
        self._last: list[tuple[NodeLink, NodeSample]] = []
        self._asked_at = 0.0

    def links(self) -> list[NodeLink]:
        """The nodes that are up."""
        return [link for link in list(self._dispatcher.links.values()) if link.is_up]

    def sample(self) -> Sample:
        """How the pool is now, for those who show or trace it."""
        samples = self._samples()
        running = self._running(samples)
        unfinished = self._counters.unfinished
        return Sample(
            time.monotonic(),
            unfinished,
            max(0, unfinished - len(running)),
            [job for job, _ in running],
            lambda: _sum(sample.memory for _, sample in samples),
            any(sample.is_short_of_memory for _, sample in samples),
        )

    def running_among(self, futures: Collection[Future[Any]]) -> list[RunningJob]:
        """The running jobs of these futures, the oldest first."""
        return [job for job, future in self._running(self._samples()) if future in futures]

    def stats(self) -> ClusterStats:
        """How the pool is now, and what it has done."""
        links = self.links()
        answers = self._ask(links, "stats")
        return self._stats(
            [NodeStats(link.node.name, link.workers, answers.get(link)) for link in links]
        )

    def dump(self, id: int, name: str, timeout_s: float) -> JobDump:
        """Ask the node that has a job what it does."""
        deadline = time.monotonic() + timeout_s
        try:
            link = self._dispatcher.ask(lambda: self._dispatcher.link_of(id)).result(timeout_s)
            if link is None:
                return JobDump(name, "queued" if self._calls.get(id) is not None else "ended")
            left_s = max(0.0, deadline - time.monotonic())
            dump: JobDump | None = self._ray.get(link.call("dump", id, left_s), timeout=left_s)
        except TimeoutError:
            raise TimeoutError(
                f"nothing was heard of job {name!r} within {timeout_s:g} s; its node may be busy or"
                " lost: try again"
            ) from None
        if dump is None:
            return JobDump(name, "queued" if self._calls.get(id) is not None else "ended")
        return dump

    def wait_ready(self, timeout_s: float | None) -> bool:
        """Wait until no node is starting and all workers of those that are up have started."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_settled():
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(_SETTLE_S)
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        answers = [link.call("wait_ready", left_s) for link in self.links()]
        try:
            return all(self._ray.get(answers, timeout=left_s))
        except self._ray.exceptions.GetTimeoutError:
            return False

    def _is_settled(self) -> bool:
        if self._dispatcher.is_over:
            raise PoolClosed("the pool has ended, so its workers do not start; make a new pool")
        try:
            return self._dispatcher.ask(self._dispatcher.is_settled).result(_ANSWER_S)
        except TimeoutError:
            return False

    def report_at_end(self) -> None:
        """Log what the pool has done."""
        if self._counters.submitted_count and _log.is_enabled_for(logging.INFO):
            _log.info("the pool has ended: %s", self._stats([]).summary)

    def _samples(self) -> list[tuple[NodeLink, NodeSample]]:
        links = self.links()
        now = time.monotonic()
        if now - self._asked_at > max(_NEWEST_S, len(links) / _SAMPLED_A_SECOND):
            self._asked_at = now
            self._last = list(self._ask(links, "sample").items())
        return self._last

    def _running(
        self, samples: Sequence[tuple[NodeLink, NodeSample]]
    ) -> list[tuple[RunningJob, Future[Any]]]:
        found = []
        for link, sample in samples:
            for id, seconds, phase in sample.running:
                if (call := self._calls.get(id)) is not None:
                    job = RunningJob(id, f"{call.name} on {link.node.name}", seconds, phase)
                    found.append((job, call.future))
        return sorted(found, key=lambda each: -each[0].seconds)

    def _ask(self, links: Sequence[NodeLink], method: str) -> dict[NodeLink, Any]:
        """Ask nodes at once. Those that do not answer in time are left out."""
        if self._dispatcher.is_here() or not links:
            return {}
        answers: dict[NodeLink, Any] = {}
        try:
            asked = {link.call(method): link for link in links}
            ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        except Exception:  # noqa: BLE001 - Ray was shut down
            return {}
        for ref in ready:
            try:
                answers[asked[ref]] = self._ray.get(ref)
            except Exception as error:  # noqa: BLE001 - the node is lost
                _log.log(logging.DEBUG, "node %s has not answered: %s", asked[ref].node.name, error)
        return answers

    def _stats(self, nodes: list[NodeStats]) -> ClusterStats:
        counters = self._counters
        pools = [node.pool for node in nodes if node.pool is not None]
        states: Counter[str] = Counter(dict.fromkeys(("starting", "idle", "busy", "leaving"), 0))
        for pool in pools:
            states.update(pool.workers)
        with self._calls.lock, counters.lock:
            unfinished = counters.unfinished
            running = min(unfinished, sum(pool.running for pool in pools))
            return ClusterStats(
                submitted=counters.submitted_count,
                running=running,
                queued=unfinished - running,
                done=counters.done,
                failed=dict(counters.failed),
                cancelled=counters.cancelled,
                retried=counters.retried,
                queue_seconds=counters.queue_times.quantiles(),
                run_seconds=counters.run_times.quantiles(),
                max_queued=self._dispatcher.max_waiting,
                workers=dict(states),
                recycled=sum(pool.recycled for pool in pools),
                restarts=Restarts(*map(sum, zip(*(pool.restarts for pool in pools), strict=True)))
                if pools
                else Restarts(),
                memory=_sum(pool.memory for pool in pools),
                first_result_seconds=counters.first_result_s,
                is_quiesced=bool(pools) and all(pool.is_quiesced for pool in pools),
                quiesced_seconds=sum(pool.quiesced_seconds for pool in pools),
                snapshot_seconds=None,
                joined=counters.joined,
                reused=counters.reused,
                peak_memory=counters.peak_memory,
                shared=None,
                nodes=tuple(nodes),
                nodes_lost=self._dispatcher.lost,
            )


def _sum(memories: Iterable[Memory]) -> Memory:
    return Memory(*map(sum, zip(Memory(), *memories, strict=True)))
