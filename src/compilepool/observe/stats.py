"""What `CompilePool.stats` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from compilepool.light_typing import NamedTuple
from compilepool.linux.proc import descendants, smaps_rollup
from compilepool.observe.counters import Quantiles
from compilepool.text import size_text


class Restarts(NamedTuple):
    """How many processes have died, by themselves or killed, and were replaced if needed.

    Attributes:
        supervisor: supervisors.
        fork_server: fork servers, since the supervisor that there is now was started.
        worker: workers, likewise; those that were ended in order do not count.
    """

    supervisor: int = 0
    fork_server: int = 0
    worker: int = 0


class Memory(NamedTuple):
    """Bytes of memory, as PSS: what several processes share counts for each with its part.

    See proc(5), `smaps`.

    Attributes:
        supervisor: of the supervisor.
        fork_server: of the fork server.
        workers: of all workers.
        jobs: of all processes that jobs have started.
    """

    supervisor: int = 0
    fork_server: int = 0
    workers: int = 0
    jobs: int = 0

    @property
    def total(self) -> int:
        """Of all of them."""
        return sum(self)


@dataclasses.dataclass(frozen=True)
class PoolStats:
    """A pool at one moment, and what it has done until then. `str()` is a report of all of it.

    Attributes:
        submitted: jobs that were submitted.
        running: those that run.
        queued: those that wait.
        done: those that have returned a result.
        failed: those that have not, by the name of the exception's type.
        cancelled: those that were cancelled.
        retried: how often a job was begun again.
        queue_seconds: how long jobs have waited.
        run_seconds: how long they ran.
        max_queued: the most jobs that have waited at once.
        workers: how many there are, by state: "starting", "idle", "busy", "leaving".
        recycled: how many workers were replaced after `max_jobs_per_worker`, or for their memory.
        restarts: how many processes have died.
        memory: what all processes take now.
        first_result_seconds: from the start of the pool's first process to the first result; None
            if there was none yet.
        is_quiesced: whether the pool sleeps: of its processes there are the supervisor, and with
            `keep_warm` the fork server.
        quiesced_seconds: for how long it has in all.
        snapshot_seconds: how old the preload is that workers start with; None if there is none.
    """

    submitted: int
    running: int
    queued: int
    done: int
    failed: Mapping[str, int]
    cancelled: int
    retried: int
    queue_seconds: Quantiles
    run_seconds: Quantiles
    max_queued: int
    workers: Mapping[str, int]
    recycled: int
    restarts: Restarts
    memory: Memory
    first_result_seconds: float | None
    is_quiesced: bool
    quiesced_seconds: float
    snapshot_seconds: float | None

    @property
    def summary(self) -> str:
        """The jobs in one line."""
        counts = [f"{self.submitted} jobs", f"{self.done} done"]
        counts += [f"{count} {kind}" for kind, count in sorted(self.failed.items())]
        for name in ("cancelled", "running", "queued", "retried"):
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
    """What they take, and all that is below workers. Slow: the kernel looks at each page.

    Args:
        supervisor: its pid; 0 if there is none. So with the others.
        fork_server: its pid.
        workers: their pids.
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
        return 0  # it has ended meanwhile
