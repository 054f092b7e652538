"""The figures of a report, as the page gets them: JSON, with microseconds from the first job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from compilepool.light_typing import Any
from compilepool.observe.trace_report.capacity import total_capacity, workers_of_pools
from compilepool.observe.trace_report.critical_path import KINDS, Step, critical_path
from compilepool.observe.trace_report.reading import Job, Run, Traces

_SLOWEST = 20
_FAILURES = 100  # with their texts
_WAITED_FOR = 8


def figures_of(traces: Traces) -> dict[str, Any]:
    """Compute everything that the page shows."""
    runs, jobs = traces.runs, traces.jobs
    begin = min((job.queued for job in jobs), default=0)
    end = max((job.ended for job in jobs), default=begin)
    names = _numbered(run.name for run in runs)
    phases = _numbered(phase for run in runs for phase, _ in run.phases)
    workers = dict.fromkeys((run.pool, run.worker) for run in sorted(runs, key=_by_start))
    rows = {worker: row for row, worker in enumerate(sorted(workers, key=_by_pool))}
    workers_of_pool = workers_of_pools(traces)
    path = critical_path(runs, traces.shortages, workers_of_pool)
    return {
        "began": datetime.fromtimestamp((traces.epoch_us + begin) / 1e6, UTC).isoformat(),
        "is_one_machine": traces.is_one_machine,
        "wall_us": end - begin,
        "workers": sum(workers_of_pool),
        "jobs": len(jobs),
        "outcomes": Counter(job.outcome for job in jobs),
        "joined": sum(job.shared == "joined" for job in jobs),
        "reused": sum(job.shared == "reused" for job in jobs),
        "run_us": sum(run.ended - run.started for run in runs),
        "cpu_s": sum(run.cpu_s for run in runs),
        "peak_bytes": max((run.peak_bytes for run in runs), default=0),
        "clients": _clients(traces),
        "capacity": total_capacity(traces, workers_of_pool)._asdict(),
        "path": [
            [KINDS.index(step.kind), step.begin - begin, step.end - begin, step.run]
            for step in path
        ],
        "path_us": {kind: _length([step for step in path if step.kind == kind]) for kind in KINDS},
        "waited_for": _waited_for(path, runs),
        "names": list(names),
        "phases": list(phases),
        "phases_us": _phase_lengths(runs),
        "rows": [{"pool": pool, "worker": worker} for pool, worker in rows],
        "runs": [_row_of(run, begin, rows[run.pool, run.worker], names, phases) for run in runs],
        "kinds": KINDS,
        "slowest": sorted(range(len(runs)), key=lambda at: runs[at].started - runs[at].ended)[
            :_SLOWEST
        ],
        "failures": _failures(jobs, begin),
    }


def _by_start(run: Run) -> int:
    return run.started


def _by_pool(worker: tuple[int, int]) -> int:
    return worker[0]


def _numbered(values: Any) -> dict[str, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


def _clients(traces: Traces) -> list[dict[str, Any]]:
    return [
        {
            "pid": client.pid,
            "program": client.program,
            "pool": client.pool,
            "jobs": sum(job.client == index for job in traces.jobs),
        }
        for index, client in enumerate(traces.clients)
    ]


def _length(steps: Sequence[Step]) -> int:
    return sum(step.end - step.begin for step in steps)


def _waited_for(path: Sequence[Step], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The jobs whose runs took most of the path, by name."""
    lengths: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for step in path:
        if step.kind == "run":
            lengths[runs[step.run].name] += step.end - step.begin
            counts[runs[step.run].name] += 1
    return [
        {"name": name, "us": length, "runs": counts[name]}
        for name, length in lengths.most_common(_WAITED_FOR)
    ]


def _phase_lengths(runs: Sequence[Run]) -> dict[str, int]:
    lengths: Counter[str] = Counter()
    for run in runs:
        for index, (name, since) in enumerate(run.phases):
            is_last = index == len(run.phases) - 1
            lengths[name] += (run.ended if is_last else run.phases[index + 1][1]) - since
    return dict(lengths.most_common())


def _row_of(
    run: Run, begin: int, row: int, names: dict[str, int], phases: dict[str, int]
) -> list[Any]:
    """A run as an array: there may be thousands."""
    return [
        row,
        names[run.name],
        run.queued - begin,
        run.started - begin,
        run.ended - begin,
        run.outcome,
        run.clients[0],
        round(run.cpu_s, 6),
        run.peak_bytes,
        run.jobs,
        [value for name, since in run.phases for value in (phases[name], since - begin)],
    ]


def _failures(jobs: Sequence[Job], begin: int) -> dict[str, Any]:
    failed = sorted((job for job in jobs if job.outcome == "failed"), key=lambda job: job.ended)
    return {
        "count": len(failed),
        "by_type": Counter(job.error.partition(":")[0] for job in failed).most_common(),
        "first": [
            {
                "name": job.name,
                "client": job.client,
                "at": job.ended - begin,
                "error": job.error,
                "text": job.error_text,
                "run": job.run,
            }
            for job in failed[:_FAILURES]
        ],
    }
