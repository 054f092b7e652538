"""`PoolStats`, the result of `CompilePool.stats`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from compilepool.light_typing import NamedTuple
from compilepool.linux.proc import descendants, smaps_rollup
from compilepool.observe.counters import Quantiles
from compilepool.text import size_text
from compilepool.wire.pool_view import ClientView


class Restarts(NamedTuple):
    """The number of processes that died, by themselves or killed, and were replaced if needed.

    Attributes:
        supervisor: supervisors that died since the pool was made.
        fork_server: fork servers that died since the current supervisor started.
        worker: workers that died since the current supervisor started. Workers that the pool ended
            in order do not count.
    """

    supervisor: int = 0
    fork_server: int = 0
    worker: int = 0


class Memory(NamedTuple):
    """Memory in bytes, as PSS: a page that several processes share counts for each with its part.

    The source is `smaps_rollup` (proc(5)).

    Attributes:
        supervisor: the supervisor's memory.
        fork_server: the fork server's memory.
        workers: the memory of all workers.
        jobs: the memory of all processes that jobs have started.
    """

    supervisor: int = 0
    fork_server: int = 0
    workers: int = 0
    jobs: int = 0

    @property
    def total(self) -> int:
        """The memory of all processes of the pool."""
        return sum(self)


class SharedStats(NamedTuple):
    """What a pool shares with other clients on this node.

    Attributes:
        identity: the name of what is shared, as `compilepool ps` shows it.
        supervisor: the PID of the supervisor.
        clients: all clients, this one included.
        joined_by_all: as `PoolStats.joined`, for all clients that there have been.
        reused_by_all: as `PoolStats.reused`, for all clients that there have been.
    """

    identity: str
    supervisor: int
    clients: tuple[ClientView, ...]
    joined_by_all: int
    reused_by_all: int

    def __str__(self) -> str:
        return (
            f"{len(self.clients)} clients, whose jobs joined {self.joined_by_all} runs and reused"
            f" {self.reused_by_all} results; {self.identity}"
        )


@dataclasses.dataclass(frozen=True)
class PoolStats:
    """The state of a pool at one moment, and what it has counted so far. `str()` reports it all.

    If the pool shares its processes, the jobs are those of this client only, and the processes and
    their memory are those of all clients.

    Attributes:
        submitted: the number of jobs that were submitted.
        running: the number of jobs that workers run now.
        queued: the number of jobs that wait for a worker now.
        done: the number of jobs that returned a result.
        failed: the number of jobs that failed, by the name of the exception's type.
        cancelled: the number of jobs that were cancelled.
        retried: how often a job began again.
        joined: the number of jobs that got the result of a run that was begun for another job, or
            queued for it.
        reused: the number of jobs that got the result of a run that had ended before.
        queue_seconds: the times from submission to start.
        run_seconds: the times from start to end.
        peak_memory: the most memory that a job was seen to take, in bytes; see
            `JobRecord.peak_memory`.
        max_queued: the largest number of jobs that have waited at the same time.
        workers: the number of workers by state: "starting", "idle", "busy" and "leaving".
        recycled: the number of workers replaced after `max_jobs_per_worker` or because of their
            memory.
        restarts: the number of processes that died.
        memory: the memory of all processes now.
        first_result_seconds: the time from the start of the pool's first process to the first
            result; None before it.
        is_quiesced: whether the pool sleeps: its only process is the supervisor, or, with
            `keep_warm`, supervisor and fork server.
        quiesced_seconds: the total time that the pool has slept.
        snapshot_seconds: the age of the preload that workers are forked from; None if there is
            none.
        shared: what the pool shares with other clients; None if it is private, or has not begun.
    """

    submitted: int
    running: int
    queued: int
    done: int
    failed: Mapping[str, int]
    cancelled: int
    retried: int
    joined: int
    reused: int
    queue_seconds: Quantiles
    run_seconds: Quantiles
    peak_memory: int
    max_queued: int
    workers: Mapping[str, int]
    recycled: int
    restarts: Restarts
    memory: Memory
    first_result_seconds: float | None
    is_quiesced: bool
    quiesced_seconds: float
    snapshot_seconds: float | None
    shared: SharedStats | None

    @property
    def summary(self) -> str:
        """The counts of jobs in one line."""
        counts = [f"{self.submitted} jobs", f"{self.done} done"]
        counts += [f"{count} {kind}" for kind, count in sorted(self.failed.items())]
        for name in ("cancelled", "running", "queued", "retried", "joined", "reused"):
            if count := getattr(self, name):
                counts.append(f"{count} {name}")
        return ", ".join(counts)

    def __str__(self) -> str:
        restarts = self.restarts
        lines = [
            f"jobs      {self.summary}",
            f"waited    {_quantiles(self.queue_seconds)}; {self.max_queued} at once at most",
            f"ran       {_quantiles(self.run_seconds)}",
            f"workers   {_counts(self.workers)}; {self.recycled} recycled",
            f"died      {restarts.supervisor} supervisors, {restarts.fork_server} fork servers,"
            f" {restarts.worker} workers",
        ]
        if self.memory.total:
            lines.append(f"memory    {size_text(self.memory.total)} (PSS): {_sizes(self.memory)}")
        if self.first_result_seconds is not None:
            lines.append(f"start     first result after {self.first_result_seconds:.3g} s")
        if self.snapshot_seconds is not None:
            lines.append(f"preload   {self.snapshot_seconds:.3g} s old")
        if self.quiesced_seconds or self.is_quiesced:
            now = ", and is now" if self.is_quiesced else ""
            lines.append(f"quiesced  {self.quiesced_seconds:.3g} s in all{now}")
        if self.shared is not None:
            lines.append(f"shared    {self.shared}")
        return "\n".join(lines)


def _quantiles(seconds: Quantiles) -> str:
    return f"p50 {seconds.p50:.3g} s, p95 {seconds.p95:.3g} s, at most {seconds.max:.3g} s"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"


def _sizes(memory: Memory) -> str:
    names = {"supervisor": "supervisor", "fork_server": "fork server"}
    return ", ".join(
        f"{names.get(name, name)} {size_text(size)}"
        for name, size in memory._asdict().items()
        if size
    )


def memory_of_pool(supervisor: int, fork_server: int, workers: Iterable[int]) -> Memory:
    """Read the memory of a pool's processes. Slow: the kernel visits each page of each process.

    Args:
        supervisor: the supervisor's PID; 0 if there is none.
        fork_server: the fork server's PID; 0 if there is none.
        workers: the workers' pids. A 0 is ignored.
    """
    pids = [pid for pid in workers if pid]
    own = {supervisor, fork_server, *pids}
    below = {child for pid in pids for child, _ in descendants(pid)} - own
    return Memory(
        _pss(supervisor),
        _pss(fork_server),
        sum(map(_pss, pids)),
        sum(map(_pss, below)),
    )


def _pss(pid: int) -> int:
    if not pid:
        return 0
    try:
        return smaps_rollup(pid)["Pss"]
    except (OSError, ValueError, KeyError):
        return 0  # the process has ended
