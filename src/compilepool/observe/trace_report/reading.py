"""Reads traces, and brings those of several programs to one clock.

All times are whole microseconds, as in the files, so that sums are exact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

from compilepool.light_typing import Any, NamedTuple


class Job(NamedTuple):
    """A job that has ended, as its program saw it.

    Attributes:
        client: the index of its program in `Traces.clients`.
        name: its name.
        queued: when it was submitted.
        ended: when it ended; if no worker began it, when its program heard of that.
        outcome: "done", "failed" or "cancelled".
        error: the type of the exception and the first line of its text; "" if there is none.
        error_text: all of its text, with the stacks that are known; "" if there is none.
        shared: "joined" or "reused" if it got the result of another job's run; else "".
        run: the index of its run in `Traces.runs`; None if no worker began it.
    """

    client: int
    name: str
    queued: int
    ended: int
    outcome: str
    error: str
    error_text: str
    shared: str
    run: int | None


class Run(NamedTuple):
    """What a worker ran, for one job or for several that shared it.

    Attributes:
        pool: the index of its pool; programs that share workers have one pool.
        worker: the PID of the worker.
        name: the name of the job.
        queued: when the first of the jobs was submitted; `started` if all came later.
        started: when it began.
        ended: when it ended.
        clients: the indices of the programs with these jobs; first that of the first job.
        phases: the names of its phases, and when each began.
        cpu_s: its CPU time, in seconds.
        peak_bytes: the most memory that it was seen to take.
        outcome: as in `Job`.
        jobs: the number of jobs that got its result.
    """

    pool: int
    worker: int
    name: str
    queued: int
    started: int
    ended: int
    clients: tuple[int, ...]
    phases: tuple[tuple[str, int], ...]
    cpu_s: float
    peak_bytes: int
    outcome: str
    jobs: int


class Client(NamedTuple):
    """A program that had a pool.

    Attributes:
        pid: its PID.
        program: its name, for people.
        max_workers: how many of its jobs could run at once.
        pool: the index of its pool.
    """

    pid: int
    program: str
    max_workers: int
    pool: int


class Traces(NamedTuple):
    """What several traces say, on one clock.

    Attributes:
        clients: the programs, in the order of the files.
        jobs: all jobs that have ended, by the time of their submission.
        runs: all runs, by the time of their end.
        shortages: when each pool was seen to wait for memory: its index, the begin and the end.
        epoch_us: what to add to a time to get microseconds since 1970.
        is_one_machine: whether all programs ran on one machine, since its last start. If not, their
            clocks were set to each other by the time of day, which is as exact as those clocks are.
    """

    clients: list[Client]
    jobs: list[Job]
    runs: list[Run]
    shortages: list[tuple[int, int, int]]
    epoch_us: int
    is_one_machine: bool


class _File(NamedTuple):
    """The events of a file, with its times on the common clock."""

    about: dict[str, Any]
    events: list[dict[str, Any]]
    shift_us: int


def read_traces(paths: Iterable[str | os.PathLike[str]]) -> Traces:
    """Read traces that pools have written.

    Args:
        paths: the files, at least one.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no trace of a pool, or is not whole.
    """
    files = [_read(os.fspath(path)) for path in paths]
    first = files[0]
    is_one_machine = all(file.about["boot"] == first.about["boot"] for file in files)
    if not is_one_machine:
        epoch = first.about["epoch_us"]
        files = [file._replace(shift_us=file.about["epoch_us"] - epoch) for file in files]
    pools = _pools_of(files)
    jobs, runs = _jobs_and_runs(files, pools)
    clients = [
        Client(_pid_of(file), file.about["program"], file.about["max_workers"], pool)
        for file, pool in zip(files, pools, strict=True)
    ]
    shortages = [
        (pool, begin, end)
        for file, pool in zip(files, pools, strict=True)
        for begin, end in _shortages_of(file)
    ]
    return Traces(clients, jobs, runs, shortages, first.about["epoch_us"], is_one_machine)


def _read(path: str) -> _File:
    with open(path, "rb") as file:
        data = file.read()
    try:
        events = json.loads(data)
        (about, *_) = (event["args"] for event in events if event.get("name") == "process_name")
        _check_types(about)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path!r} is no trace of a pool, as CompilePool(trace=...) writes it, or is not whole:"
            f" {error}"
        ) from None
    return _File(about, events, 0)


def _check_types(about: dict[str, Any]) -> None:
    types = {"program": str, "max_workers": int, "boot": str, "epoch_us": int}
    for name, type_ in types.items():
        if not isinstance(about[name], type_):
            raise TypeError(f"{name} is {about[name]!r}")


def _pid_of(file: _File) -> int:
    return next(int(event["pid"]) for event in file.events if "pid" in event)


def _is_job(event: dict[str, Any]) -> bool:
    return event.get("cat") == "job"


def _pools_of(files: Sequence[_File]) -> list[int]:
    """The pool of each file: those with a worker in common have one."""
    pools = list(range(len(files)))
    seen: dict[tuple[str, int], int] = {}
    for index, file in enumerate(files):
        for event in file.events:
            if _is_job(event) and event["ph"] == "X":
                other = seen.setdefault((file.about["boot"], event["tid"]), index)
                if pools[other] != pools[index]:
                    old, new = sorted((pools[other], pools[index]))[::-1]
                    pools = [new if pool == old else pool for pool in pools]
    numbers = {pool: number for number, pool in enumerate(dict.fromkeys(pools))}
    return [numbers[pool] for pool in pools]


def _jobs_and_runs(files: Sequence[_File], pools: Sequence[int]) -> tuple[list[Job], list[Run]]:
    jobs: list[Job] = []
    slices: dict[tuple[int, int, int], list[tuple[int, dict[str, Any]]]] = {}
    """The jobs of each run, as an index of `jobs` and an event, by pool, worker and begin."""
    phases: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for client, (file, pool) in enumerate(zip(files, pools, strict=True)):
        for event in file.events:
            if _is_job(event):
                if event["ph"] == "X":
                    key = (pool, event["tid"], event["ts"] + file.shift_us)
                    slices.setdefault(key, []).append((len(jobs), event))
                jobs.append(_job_of(client, event, file.shift_us))
            elif event.get("cat") == "phase":
                begun = (event["ts"] + file.shift_us, event["name"])
                phases.setdefault((pool, event["tid"]), []).append(begun)
    runs = sorted(
        (_run_of(key, members, jobs) for key, members in slices.items()),
        key=lambda run: (run.ended, run.started, run.pool, run.worker),
    )
    runs = _with_phases(runs, phases)
    index_of = {(run.pool, run.worker, run.started): index for index, run in enumerate(runs)}
    for key, members in slices.items():
        for index, _ in members:
            jobs[index] = jobs[index]._replace(run=index_of[key])
    jobs.sort(key=lambda job: (job.queued, job.client))
    return jobs, runs


def _job_of(client: int, event: dict[str, Any], shift_us: int) -> Job:
    args = event["args"]
    outcome = "cancelled" if "cancelled" in args else "failed" if "error" in args else "done"
    return Job(
        client,
        event["name"],
        args["queued"] + shift_us,
        event["ts"] + event.get("dur", 0) + shift_us,
        outcome,
        args.get("error", ""),
        args.get("error_text", ""),
        args.get("shared", ""),
        None,
    )


def _run_of(
    key: tuple[int, int, int], members: list[tuple[int, dict[str, Any]]], jobs: Sequence[Job]
) -> Run:
    pool, worker, started = key
    members = sorted(members, key=lambda member: (jobs[member[0]].queued, member[0]))
    first, event = members[0]
    args = event["args"]
    return Run(
        pool,
        worker,
        event["name"],
        min(jobs[first].queued, started),
        started,
        started + event["dur"],
        tuple(dict.fromkeys(jobs[index].client for index, _ in members)),
        (),
        args["cpu_seconds"],
        args["peak_memory"],
        jobs[first].outcome,
        len(members),
    )


def _with_phases(
    runs: Sequence[Run], phases: dict[tuple[int, int], list[tuple[int, str]]]
) -> list[Run]:
    """The runs with those phases of their workers that began in them."""
    of_worker: dict[tuple[int, int], list[int]] = {}
    for index, run in enumerate(runs):
        of_worker.setdefault((run.pool, run.worker), []).append(index)
    found = list(runs)
    for key, indices in of_worker.items():
        begun = sorted(set(phases.get(key, ())))  # each program that shares a run has its phases
        at = 0
        for index in indices:
            run = runs[index]
            own = []
            while at < len(begun) and begun[at][0] <= run.ended:
                # At the very end of a run, it is the first of the next one.
                if begun[at][0] == run.ended > run.started:
                    break
                own.append((begun[at][1], begun[at][0]))
                at += 1
            found[index] = run._replace(phases=tuple(own))
    return found


def _shortages_of(file: _File) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    begin: int | None = None
    last = 0
    for event in file.events:
        last = max(last, event.get("ts", 0) + event.get("dur", 0) + file.shift_us)
        if event["ph"] == "C" and event["name"] == "short of memory":
            at = event["ts"] + file.shift_us
            if event["args"]["yes"]:
                begin = at if begin is None else begin
            elif begin is not None:
                found.append((begin, at))
                begin = None
    return found if begin is None else [*found, (begin, last)]
