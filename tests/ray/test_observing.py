"""What a pool over several nodes tells of itself."""

from __future__ import annotations

import io
import itertools
import logging
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from compilepool import as_completed, report_phase
from compilepool.integrations.ray import RayCompilePool
from tests import traces
from tests.proc import wait_until
from tests.ray import ray_jobs as jobs
from tests.ray.clusters import Nodes

LONG_S = 120


def test_one_trace_has_the_workers_of_all_nodes(cluster: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with RayCompilePool(trace=path) as pool:
        assert pool.wait_ready(LONG_S)
        futures = [pool.submit(phased, 0.3) for _ in range(18)]
        assert {future.result(LONG_S) for future in futures} == {"done"}
        crash = pool.submit(jobs.crash)
        assert crash.exception(LONG_S)
    events = traces.read(path)
    names = {
        event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"
    }
    slices = traces.slices(events)
    assert len(slices) == 19
    assert {names[each["pid"]] for each in slices} == {
        f"node {future.record.node}" for future in futures
    }
    assert len({each["pid"] for each in slices}) == 3
    times = sorted((each["pid"], each["tid"], each["ts"], each["dur"]) for each in slices)
    for one, two in itertools.pairwise(times):
        assert one[:2] != two[:2] or one[2] + one[3] <= two[2], "jobs of one worker overlap"
    phases = traces.slices(events, "phase")
    assert {each["name"] for each in phases} == {"first", "second"}
    running = traces.counters(events, "jobs")
    assert max(each["running"] for each in running) == 6
    assert any(event["ph"] == "i" and event["name"] == "WorkerCrashed" for event in events)


def phased(seconds: float) -> str:
    report_phase("first")
    time.sleep(seconds / 2)
    report_phase("second")
    time.sleep(seconds / 2)
    return "done"


def test_statistics_are_of_all_nodes_and_of_each(
    pool: RayCompilePool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert pool.wait_ready(LONG_S)
        futures = [pool.submit(phased, 0.1) for _ in range(12)]
        assert all(future.result(LONG_S) for future in futures)
        futures[0].cancel()
        stats = pool.stats()
        pool.shutdown()
    assert stats.done == sum(node.pool.done for node in stats.nodes if node.pool) == 12
    assert sum(stats.workers.values()) == 6
    assert stats.memory.workers > 0
    assert stats.memory.total == sum(node.pool.memory.total for node in stats.nodes if node.pool)
    assert stats.run_seconds.total >= 12 * 0.1
    assert stats.first_result_seconds is not None
    text = str(stats)
    assert "nodes     3; 0 lost" in text
    assert all(node.name in text for node in stats.nodes)
    assert "the pool has ended: 12 jobs, 12 done" in caplog.text


def test_progress_shows_the_jobs_of_all_nodes(pool: RayCompilePool, tmp_path: Path) -> None:
    screen = io.StringIO()
    gate = tmp_path / "gate"
    console = Console(file=screen, force_terminal=True, width=120)
    futures = [pool.options(name=f"job {n}").submit(jobs.wait_for, str(gate)) for n in range(6)]
    with Progress(console=console) as progress:
        done = as_completed(futures, progress=progress)

        def all_are_shown() -> bool:
            return all(f"job {n} on " in screen.getvalue() for n in range(6))

        def open_gate() -> None:
            wait_until(all_are_shown)
            gate.touch()

        opener = threading.Thread(target=open_gate)
        opener.start()
        assert {future.result() for future in done} == {str(gate)}
        opener.join()
    assert all_are_shown()
