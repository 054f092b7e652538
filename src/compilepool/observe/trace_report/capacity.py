"""What the workers of a pool did with their time, and what it was lost to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from compilepool.light_typing import NamedTuple
from compilepool.observe.trace_report.reading import Run, Traces


class Capacity(NamedTuple):
    """The time of all workers that there could be, in microseconds, by what became of it.

    Attributes:
        busy: they ran jobs.
        start: jobs waited for workers that had not started yet, or had to be replaced.
        queue: jobs waited although a worker was idle: they were on their way to it.
        memory: jobs waited for memory. A pool is looked at five times a second, so shorter waits
            count as `queue` or `start`.
        few_jobs: jobs ran, none waited, and more came later.
        tail: jobs ran, none waited, and none came any more: long jobs at the end.
        no_jobs: the program had no job for the pool.
    """

    busy: int = 0
    start: int = 0
    queue: int = 0
    memory: int = 0
    few_jobs: int = 0
    tail: int = 0
    no_jobs: int = 0


def capacity_of(
    runs: Sequence[Run], shortages: Sequence[tuple[int, int]], workers: int
) -> Capacity:
    """Account for the time from the first submission of a pool's runs to the last end.

    Args:
        runs: the runs of one pool.
        shortages: when runs were seen to wait for memory: begins and ends.
        workers: how many workers the pool could have. While a crashed worker is looked into, its
            successor may run, too: more than that many at once count as that many.

    Returns:
        The times. Their sum is `workers` times the time in between.
    """
    if not runs:
        return Capacity()
    times = sorted(
        {time for run in runs for time in (run.queued, run.started, run.ended)}
        | {time for times in shortages for time in times}
    )
    begin, end = min(run.queued for run in runs), max(run.ended for run in runs)
    waiting = _count_over(times, [(run.queued, run.started) for run in runs])
    running = _count_over(times, [(run.started, run.ended) for run in runs])
    alive = _count_over(times, _lives(runs))
    short = _count_over(times, shortages)
    last_start = max(run.started for run in runs)
    lost = dict.fromkeys(Capacity._fields, 0)
    for index, (since, until) in enumerate(pairwise(times)):
        if not begin <= since < end:
            continue
        length = until - since
        busy = min(running[index], workers)
        idle = workers - busy
        wanted = min(idle, waiting[index])
        lost["busy"] += busy * length
        if short[index]:
            lost["memory"] += wanted * length
        else:
            there = max(0, min(wanted, alive[index] - busy))
            lost["queue"] += there * length
            lost["start"] += (wanted - there) * length
        why_no_job_waits = "tail" if since >= last_start else "few_jobs"
        lost[why_no_job_waits if busy or wanted else "no_jobs"] += (idle - wanted) * length
    return Capacity(**lost)


def total_capacity(traces: Traces, workers: Sequence[int]) -> Capacity:
    """The times of all pools, each of which could have so many workers."""
    total = Capacity()
    for pool, count in enumerate(workers):
        runs = [run for run in traces.runs if run.pool == pool]
        shortages = [(begin, end) for which, begin, end in traces.shortages if which == pool]
        own = capacity_of(runs, shortages, count)
        total = Capacity(*(a + b for a, b in zip(total, own, strict=True)))
    return total


def workers_of_pools(traces: Traces) -> list[int]:
    """How many workers each pool could have; 0 if it ran nothing.

    A shared pool whose programs leave that open has as many as they have CPUs together, which none
    of them knows. So it has at least as many as were seen to run jobs to the end at the same time.
    """
    counts = [0] * (1 + max(client.pool for client in traces.clients))
    for client in traces.clients:
        counts[client.pool] = max(counts[client.pool], client.max_workers)
    for pool, count in enumerate(counts):
        runs = [run for run in traces.runs if run.pool == pool]
        counts[pool] = max(count, _most_at_once(runs)) if runs else 0
    return counts


def _most_at_once(runs: Sequence[Run]) -> int:
    intervals = [(run.started, run.ended) for run in runs if run.outcome == "done"]
    times = sorted({time for interval in intervals for time in interval})
    return max(_count_over(times, intervals), default=0)


def _lives(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """From when to when each worker is known to have lived."""
    lives: dict[int, tuple[int, int]] = {}
    for run in runs:
        since, until = lives.get(run.worker, (run.started, run.ended))
        lives[run.worker] = (min(since, run.started), max(until, run.ended))
    return list(lives.values())


def _count_over(times: Sequence[int], intervals: Sequence[tuple[int, int]]) -> list[int]:
    """How many intervals cover the time from each of `times` to the next one.

    Args:
        times: distinct times in order, among them all begins and ends.
        intervals: begins and ends.
    """
    changes = dict.fromkeys(times, 0)
    for begin, end in intervals:
        changes[begin] += 1
        changes[end] -= 1
    counts, now = [], 0
    for time in times:
        now += changes[time]
        counts.append(now)
    return counts
