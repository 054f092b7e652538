"""A report of traces: what its figures add up to, whatever the jobs were."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.observe.trace_report.capacity import Capacity, capacity_of, workers_of_pools
from compilepool.observe.trace_report.critical_path import critical_path
from compilepool.observe.trace_report.figures import figures_of
from compilepool.observe.trace_report.page import render, write_report
from compilepool.observe.trace_report.reading import Run, Traces, read_traces
from tests.traces import Event

ABOUT = {"name": "compilepool", "max_workers": 2, "boot": "b", "epoch_us": 10**15}


def run_of(
    worker: int, queued: int, started: int, ended: int, client: int = 0, pool: int = 0
) -> Run:
    name = f"kernel_{started % 7}"
    return Run(pool, worker, name, queued, started, ended, (client,), (), 0.5, 1, "done", 1)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Run], list[tuple[int, int]], int]:
    """Runs as workers may have run them, short of memory at times; and how many there may be."""
    workers = draw(st.integers(1, 4))
    runs = []
    for worker in range(workers):
        now = draw(st.integers(0, 20))
        for _ in range(draw(st.integers(0, 5))):
            now += draw(st.integers(0, 6))
            length = draw(st.integers(0, 9))
            queued = draw(st.integers(0, now))
            runs.append(run_of(100 + worker, queued, now, now + length, draw(st.integers(0, 1))))
            now += length
    runs.sort(key=lambda run: (run.ended, run.started, run.pool, run.worker))
    short = sorted(draw(st.lists(st.integers(0, 60), max_size=4, unique=True)))
    return runs, list(zip(short[::2], short[1::2], strict=False)), workers


def counted(runs: list[Run], shortages: list[tuple[int, int]], workers: int) -> Capacity:
    """What `capacity_of` tells, counted out for each moment and each worker."""
    total: Counter[str] = Counter()
    for now in range(min(run.queued for run in runs), max(run.ended for run in runs)):
        running = {run.worker for run in runs if run.started <= now < run.ended}
        waiting = [run for run in runs if run.queued <= now < run.started]
        there = {
            run.worker
            for run in runs
            if run.started <= now and any(o.ended > now and o.worker == run.worker for o in runs)
        }
        is_short = any(begin <= now < end for begin, end in shortages)
        is_over = all(run.started <= now for run in runs)
        idle = list(there - running)
        idle += [-1] * (workers - len(running) - len(idle))  # a worker that is not there
        total["busy"] += len(running)
        for worker in sorted(idle, reverse=True):
            if waiting:
                waiting.pop()
                total["memory" if is_short else "start" if worker == -1 else "queue"] += 1
            elif running or any(run.queued <= now < run.started for run in runs):
                total["tail" if is_over else "few_jobs"] += 1
            else:
                total["no_jobs"] += 1
    return Capacity(**total)


@given(schedules())
def test_the_time_of_the_workers_is_accounted_for(
    schedule: tuple[list[Run], list[tuple[int, int]], int],
) -> None:
    runs, shortages, workers = schedule
    capacity = capacity_of(runs, shortages, workers)
    if not runs:
        assert sum(capacity) == 0
        return
    length = max(run.ended for run in runs) - min(run.queued for run in runs)
    assert sum(capacity) == workers * length
    assert capacity.busy == sum(run.ended - run.started for run in runs)
    assert capacity == counted(runs, shortages, workers)


@given(schedules())
def test_a_crashed_worker_beside_its_successor_makes_no_more_of_them(
    schedule: tuple[list[Run], list[tuple[int, int]], int],
) -> None:
    runs, shortages, workers = schedule
    begin = min((run.queued for run in runs), default=0)
    end = max((run.ended for run in runs), default=1)
    crashed = run_of(99, begin, begin, end)._replace(outcome="failed")
    capacity = capacity_of([*runs, crashed], shortages, workers)
    assert sum(capacity) == workers * (end - begin)
    assert min(capacity) >= 0


@given(schedules())
def test_the_critical_path_has_no_gap_and_ends_with_the_last_job(
    schedule: tuple[list[Run], list[tuple[int, int]], int],
) -> None:
    runs, shortages, workers = schedule
    held = [(0, begin, end) for begin, end in shortages]
    path = critical_path(runs, held, [workers])
    assert all(before.end == step.begin for before, step in pairwise(path))
    assert all(step.begin < step.end for step in path)
    for step in path:
        run = runs[step.run]
        if step.kind == "run":
            assert (step.begin, step.end) == (run.started, run.ended)
        elif step.kind == "program":
            assert step.end == run.queued
        else:
            assert run.queued <= step.begin
            assert step.end == run.started
    if path:
        assert path[-1].end == max(run.ended for run in runs)
        assert path[0].begin in {run.queued for run in runs}


def kinds(path: list[Any]) -> list[tuple[str, int]]:
    return [(step.kind, step.end - step.begin) for step in path]


def test_a_run_waits_for_the_one_before_it_on_its_worker() -> None:
    runs = [run_of(1, 0, 5, 20), run_of(1, 0, 21, 30)]
    assert kinds(critical_path(runs, [], [1])) == [
        ("start", 5),
        ("run", 15),
        ("queue", 1),
        ("run", 9),
    ]


def test_a_run_that_did_not_wait_was_submitted_after_the_last_result() -> None:
    runs = [run_of(1, 0, 1, 10), run_of(2, 14, 14, 30)]
    path = critical_path(runs, [], [2])
    assert kinds(path) == [("start", 1), ("run", 9), ("program", 4), ("run", 16)]


def test_a_new_worker_is_waited_for_after_the_run_that_made_room_for_it() -> None:
    runs = [run_of(1, 0, 1, 10), run_of(2, 0, 15, 30)]
    assert kinds(critical_path(runs, [], [1])) == [
        ("start", 1),
        ("run", 9),
        ("start", 5),
        ("run", 15),
    ]


def test_a_run_that_waits_for_memory_waits_for_the_run_that_freed_it() -> None:
    runs = [run_of(1, 0, 1, 10), run_of(2, 0, 12, 30)]
    path = critical_path(runs, [(0, 3, 11)], [2])
    assert kinds(path) == [("start", 1), ("run", 9), ("memory", 2), ("run", 18)]


# Files


def job_event(worker: int, queued: int, started: int, ended: int, **args: object) -> Event:
    used = {"job": 1, "queue_seconds": 0.0, "cpu_seconds": 0.25, "peak_memory": 7}
    return {
        "ph": "X",
        "cat": "job",
        "name": "kernel",
        "ts": started,
        "dur": ended - started,
        "pid": 5,
        "tid": worker,
        "args": {**used, "queued": queued, **args},
    }


def phase_event(worker: int, name: str, begin: int, end: int) -> Event:
    return {
        "ph": "X",
        "cat": "phase",
        "name": name,
        "ts": begin,
        "dur": end - begin,
        "pid": 5,
        "tid": worker,
        "args": {},
    }


def write(path: Path, *events: Event, **about: object) -> Path:
    args = {**ABOUT, "program": path.stem, **about}
    head = {"ph": "M", "name": "process_name", "pid": 5, "args": args}
    path.write_text(json.dumps([head, *events]))
    return path


def read(*paths: Path) -> Traces:
    return read_traces(paths)


def test_programs_that_share_a_worker_have_one_pool_and_one_run(tmp_path: Path) -> None:
    traces = read(
        write(tmp_path / "a.json", job_event(7, 10, 20, 30), phase_event(7, "parse", 20, 30)),
        write(tmp_path / "b.json", job_event(9, 5, 6, 8)),
        write(
            tmp_path / "c.json",
            job_event(7, 15, 20, 30, shared="joined"),
            job_event(7, 40, 20, 30, shared="reused"),
            phase_event(7, "parse", 20, 30),
        ),
    )
    assert [client.pool for client in traces.clients] == [0, 1, 0]
    assert [(run.pool, run.worker, run.jobs) for run in traces.runs] == [(1, 9, 1), (0, 7, 3)]
    assert traces.runs[1].phases == (("parse", 20),)
    assert [job.run for job in traces.jobs] == [0, 1, 1, 1]
    assert workers_of_pools(traces) == [2, 2]
    figures = figures_of(traces)
    assert (figures["joined"], figures["reused"], figures["jobs"]) == (1, 1, 4)
    assert figures["run_us"] == 12


def test_a_pool_that_ran_nothing_had_no_workers(tmp_path: Path) -> None:
    traces = read(
        write(tmp_path / "launcher.json"), write(tmp_path / "a.json", job_event(7, 1, 2, 3))
    )
    assert workers_of_pools(traces) == [0, 2]
    assert figures_of(traces)["workers"] == 2


def test_traces_of_two_machines_go_on_the_clock_of_the_first(tmp_path: Path) -> None:
    traces = read(
        write(tmp_path / "a.json", job_event(7, 1000, 1001, 1002)),
        write(tmp_path / "b.json", job_event(7, 500, 501, 502), boot="c", epoch_us=10**15 + 600),
    )
    assert not traces.is_one_machine
    assert [(job.queued, job.ended) for job in traces.jobs] == [(1000, 1002), (1100, 1102)]
    assert [client.pool for client in traces.clients] == [0, 1]


def test_failed_and_cancelled_jobs_that_never_ran_are_counted(tmp_path: Path) -> None:
    never = {"ph": "i", "s": "p", "cat": "job", "name": "never", "ts": 50, "pid": 5}
    failure = {"job": 2, "queued": 3, "error": "PreloadFailed: no", "error_text": "all of it"}
    figures = figures_of(
        read(
            write(
                tmp_path / "a.json",
                never | {"args": failure},
                never | {"args": {"job": 3, "queued": 4, "cancelled": True}},
            )
        )
    )
    assert figures["outcomes"] == {"failed": 1, "cancelled": 1}
    assert figures["wall_us"] == 47
    assert sum(figures["capacity"].values()) == 0
    (failed,) = figures["failures"]["first"]
    assert (failed["name"], failed["text"], failed["run"]) == ("never", "all of it", None)


def test_a_trace_without_a_job_makes_a_report(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.json")
    assert write_report([trace], tmp_path / "a.html")["jobs"] == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.html", "a.json"]


@pytest.mark.parametrize("text", ["", "[", "{}", "[]", "[1]", '[{"name": "process_name"}]'])
def test_what_is_no_trace_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no trace of a pool"):
        read(path)


@given(st.text())
def test_no_text_of_a_job_can_become_markup(text: str) -> None:
    figures = {"names": [text, "</script><script>alert(1)</script><!--figures-->"]}
    page = render(figures)
    _, _, rest = page.partition('<script type="application/json" id="figures">')
    data, _, after = rest.partition("</script>")
    assert json.loads(data) == figures
    assert "alert(1)" not in after


def test_the_page_loads_nothing() -> None:
    page = render({"names": []})
    for loads in ("src=", "href=", "url(", "import(", "@import", "fetch(", "//cdn", "https:"):
        assert loads not in page


def test_a_shared_run_is_a_result_of_every_program_that_got_it() -> None:
    shared = run_of(1, 0, 3, 10)._replace(clients=(0, 1))
    path = critical_path([shared, run_of(1, 12, 12, 20, client=1)], [], [1])
    assert kinds(path) == [("start", 3), ("run", 7), ("program", 2), ("run", 8)]
