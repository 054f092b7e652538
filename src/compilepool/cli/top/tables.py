"""The tables of `top`: their columns and rows, for the terminal and for `--once`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from compilepool.cli.top.sight import PoolSight, Used, what_failed
from compilepool.text import printable, size_text
from compilepool.wire.visiting import FailedLook

LONG_S = 60.0
"""A run that takes longer is marked: it may hang."""

WIDE = 120
"""The columns that a table needs to show all that it has."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: its title.
        width: its width in characters; 0: it shares what the others leave.
        is_right: whether its text is on the right.
        is_extra: whether it is shown in wide tables only.
    """

    title: str
    width: int
    is_right: bool = False
    is_extra: bool = False


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key: what no other row of the table has.
        cells: the text of each column.
        pool: the pool that it belongs to.
        run: the run that it stands for; 0 if none.
        failed: the failure that it stands for; None if none.
        client: the client that it stands for; 0 if none.
        style: the color of the row, for rich; empty for none.
    """

    key: str
    cells: tuple[str, ...]
    pool: PoolSight
    run: int = 0
    failed: FailedLook | None = None
    client: int = 0
    style: str = ""


POOLS = (
    Column("POOL", 8),
    Column("PROGRAMS", 0),
    Column("CLIENTS", 7, True),
    Column("BUSY", 7, True),
    Column("QUEUED", 6, True),
    Column("JOINED", 6, True),
    Column("KEPT", 6, True, True),
    Column("DONE", 7, True, True),
    Column("RAISED", 6, True, True),
    Column("FAILED", 6, True),
    Column("CPU", 6, True),
    Column("MEMORY", 8, True),
    Column("AGE", 7, True, True),
)
CLIENTS = (
    Column("CLIENT", 8, True),
    Column("PROGRAM", 0),
    Column("POOL", 8),
    Column("RUNNING", 7, True),
    Column("JOBS", 6, True),
)
JOBS = (
    Column("WORKER", 8, True),
    Column("STATE", 8),
    Column("SECONDS", 7, True),
    Column("CPU", 5, True),
    Column("MEMORY", 8, True),
    Column("JOB", 0),
    Column("PHASE", 12),
    Column("SINCE", 6, True, True),
    Column("CLIENTS", 9),
    Column("POOL", 8, False, True),
)
FAILURES = (
    Column("TIME", 8),
    Column("CLIENT", 8, True),
    Column("POOL", 8, False, True),
    Column("JOB", 16),
    Column("FAILURE", 0),
)


class JobRow(NamedTuple):
    """What jobs are sorted by."""

    row: Row
    seconds: float
    cpu: float
    memory: int
    job: str
    is_queued: bool


SORTS: dict[str, Callable[[JobRow], Any]] = {
    "pool": lambda job: job.row.pool.key,
    "seconds": lambda job: -job.seconds,
    "cpu": lambda job: -job.cpu,
    "memory": lambda job: -job.memory,
    "job": lambda job: job.job,
}


def only(pools: list[PoolSight], wanted: str) -> list[PoolSight]:
    """The pools that have a client that matches the filter `wanted`."""
    if not wanted:
        return pools
    return [
        pool
        for pool in pools
        if pool.look is not None
        and pool.concerns(wanted, tuple(client.pid for client in pool.look.clients))
    ]


def summary(pools: Sequence[PoolSight]) -> str:
    """All pools in one line."""
    looks = [pool.look for pool in pools if pool.look is not None]
    workers = [worker for look in looks for worker in look.workers]
    parts = [
        _count(len(pools), "pool"),
        _count(sum(len(look.clients) for look in looks), "client"),
        f"{_count(len(workers), 'worker')} ({sum(1 for each in workers if each.run)} busy)",
        f"{sum(look.queued for look in looks)} queued",
        f"{sum(look.joined for look in looks)} joined",
        f"{sum(look.failed for look in looks)} failed",
    ]
    return ", ".join(parts)


def pool_rows(pools: Sequence[PoolSight]) -> list[Row]:
    """A row for each pool."""
    rows = []
    for pool in pools:
        look = pool.look
        if look is None:
            cells = (pool.label, pool.trouble, *[""] * (len(POOLS) - 2))
            rows.append(Row(pool.key, cells, pool, style="yellow"))
            continue
        pids = tuple(client.pid for client in look.clients)
        total = pool.total
        busy = sum(1 for worker in look.workers if worker.run)
        names = [pool.names.get(pid, "") for pid in pids]
        programs = names[0] if names else "no program"
        programs += f" and {len(names) - 1} more" if len(names) > 1 else ""
        programs = f"quiesced: {programs}" if look.is_quiesced else programs
        cells = (
            pool.label,
            programs if pool.is_private else f"{programs} (shared)",
            str(len(pids)),
            f"{busy}/{len(look.workers)}",
            str(look.queued),
            str(look.joined),
            str(look.reused),
            str(look.returned),
            str(look.raised),
            str(look.failed),
            _cpu(total) if pool.used else "?",
            size_text(total.resident) if pool.used else "?",
            age(time.time() - look.started),
        )
        rows.append(Row(pool.key, cells, pool))
    return rows


def client_rows(pools: Sequence[PoolSight], wanted: str = "") -> list[Row]:
    """A row for each client that matches the filter."""
    rows = []
    for pool in pools:
        look = pool.look
        for number, client in enumerate(() if look is None else look.clients):
            if look is None or not pool.concerns(wanted, (client.pid,)):
                continue
            running = sum(worker.clients.count(client.pid) for worker in look.workers)
            name = pool.names.get(client.pid, "")
            cells = (str(client.pid), name, pool.label, str(running), str(client.jobs))
            rows.append(Row(f"{pool.key}/{number}", cells, pool, client=client.pid))
    return rows


def job_rows(
    pools: Sequence[PoolSight], wanted: str = "", sort: str = "pool", *, is_reversed: bool = False
) -> list[Row]:
    """A row for each worker, and one for each run that waits."""
    jobs = [job for pool in pools for job in _jobs_of(pool, wanted)]
    jobs.sort(key=SORTS[sort], reverse=is_reversed)
    # What waits comes last, whatever the order.
    return [job.row for job in sorted(jobs, key=lambda job: job.is_queued)]


def _jobs_of(pool: PoolSight, wanted: str) -> list[JobRow]:
    look = pool.look
    jobs: list[JobRow] = []
    if look is None:
        return jobs
    for number, worker in enumerate(look.workers):
        if wanted and not pool.concerns(wanted, worker.clients):
            continue
        used = pool.used.get(worker.pid)
        seconds = pool.now - worker.since if worker.run else 0.0
        phase_s = f"{pool.now - worker.phase_since:.1f}" if worker.phase else ""
        cells = (
            str(worker.pid or ""),
            worker.state,
            f"{seconds:.1f}" if worker.run else "",
            _cpu(used),
            "" if used is None else size_text(used.resident),
            worker.job,
            worker.phase,
            phase_s,
            _clients(worker.clients),
            pool.label,
        )
        style = "" if worker.run else "dim"
        row = Row(
            f"{pool.key}/worker/{worker.pid or -number}",
            cells,
            pool,
            worker.run,
            style="yellow" if seconds > LONG_S else style,
        )
        cpu, memory = (0.0, 0) if used is None else (used.cpu or 0.0, used.resident)
        jobs.append(JobRow(row, seconds, cpu, memory, worker.job, False))
    for queued in look.queue:
        if pool.concerns(wanted, queued.clients):
            job, clients = queued.job, _clients(queued.clients)
            cells = ("", "queued", "", "", "", job, "", "", clients, pool.label)
            row = Row(f"{pool.key}/run/{queued.run}", cells, pool, queued.run, style="cyan")
            jobs.append(JobRow(row, 0.0, 0.0, 0, queued.job, True))
    return jobs


def failure_rows(pools: Sequence[PoolSight], wanted: str = "") -> list[Row]:
    """A row for each failure, the latest first."""
    failures = [
        (failed.at, pool, failed)
        for pool in pools
        for failed in pool.failures
        if pool.concerns(wanted, failed.clients)
    ]
    failures.sort(key=lambda each: -each[0])
    return [
        Row(
            f"{pool.key}/{failed.number}",
            (
                time.strftime("%H:%M:%S", time.localtime(at)),
                str(failed.clients[0]) if failed.clients else "",
                pool.label,
                failed.job,
                _without_job(what_failed(failed), failed.job),
            ),
            pool,
            failed=failed,
            style="red",
        )
        for at, pool, failed in failures
    ]


def _without_job(what: str, job: str) -> str:
    """A failure in one line, but for the job's name, which has a column."""
    name = printable(repr(job))
    return what.removeprefix(f"the worker that ran job {name} ").removeprefix(f"job {name} ")


def fit(columns: Sequence[Column], width: int) -> list[tuple[int, Column, int]]:
    """Which columns are shown in a table of a width, and how wide each is.

    Args:
        columns: those of the table.
        width: the characters that there are.

    Returns:
        For each column that is shown: its number, itself, and its width, without the blank that
        follows it.
    """
    shown = [(n, each) for n, each in enumerate(columns) if width >= WIDE or not each.is_extra]
    fixed = sum(column.width + 1 for _, column in shown)
    flexible = max(8, width - fixed)
    return [(number, column, column.width or flexible) for number, column in shown]


def cut(text: str, width: int, *, is_right: bool = False) -> str:
    """Text of exactly this width that is safe to write to a terminal."""
    text = printable(text)
    if len(text) > width:
        return text[: width - 1] + "…"
    return text.rjust(width) if is_right else text.ljust(width)


def age(seconds: float) -> str:
    """A time in its largest unit but one, in few characters."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 48 * 3600 else f"{whole // 86400} d"


def _clients(pids: tuple[int, ...]) -> str:
    if not pids:
        return ""
    more = len(pids) - 1
    return str(pids[0]) + (f"+{more}" if more else "")


def _cpu(used: Used | None) -> str:
    return "" if used is None or used.cpu is None else f"{100 * used.cpu:.0f} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
