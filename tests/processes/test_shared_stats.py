"""The statistics of pools that are shared."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S, wait_until
from tests.processes.replays import compilepool, listed
from tests.sharing import Program, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")


def test_a_private_pool_shares_nothing() -> None:
    with CompilePool(1) as pool:
        assert pool.stats().shared is None
        pool.submit(abs, 1).result(PATIENCE_S)
        assert pool.stats().shared is None
        assert "shared" not in str(pool.stats())


def stats_of(program: Program, *names: str) -> list[Any]:
    """Some of the statistics that a program sees."""
    values = ", ".join(f"stats.{name}" for name in names)
    found: list[Any] = program.run(f"(lambda stats: [{values}])(pool.stats())")
    return found


def test_a_client_counts_its_own_jobs_and_sees_all_clients(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(2, "max_workers=1, shared=True") as (many, few):
        wait = f"jobs.wait_for, {str(go)!r}"
        many.run(f"futures.update({{n: pool.submit({wait}) for n in range(40)}})")
        few.run(f"futures.update({{n: pool.submit({wait}) for n in range(2)}})")
        names = ("submitted", "running", "queued", "max_queued")
        assert wait_until(lambda: stats_of(many, *names) == [40, 1, 39, 39])
        assert stats_of(few, *names) == [2, 0, 2, 2]
        views = ("_session._views.view().queued",)
        assert [many.run(f"pool.{views[0]}"), few.run(f"pool.{views[0]}")] == [39, 2]
        (row,) = listed()
        (supervisor,) = supervisors()
        for program in (many, few):
            identity, pid, clients = stats_of(
                program, "shared.identity", "shared.supervisor", "shared.clients"
            )
            assert (identity, pid) == (row["identity"], supervisor)
            assert [(client[0], client[2]) for client in clients] == [(many.pid, 40), (few.pid, 2)]
        assert program.run("str(pool.stats())").splitlines()[-1] == (
            f"shared    2 clients, whose jobs joined 0 runs and reused 0 results; {row['identity']}"
        )
        go.touch()
        few.run("[each.result() for each in futures.values()]")
        assert stats_of(few, "done", "queued", "max_queued") == [2, 0, 2]
        many.end()
        assert wait_until(lambda: len(stats_of(few, "shared.clients")[0]) == 1)
        few.end()


def test_joined_runs_and_reused_results_are_counted_for_each_and_for_all(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    options = "max_workers=1, shared=True, single_flight=True"
    names = ("submitted", "done", "joined", "reused")
    totals = ("shared.joined_by_all", "shared.reused_by_all")
    with programs(3, options) as (first, second, late):
        call = f"jobs.append_and_wait, {str(log)!r}, {str(go)!r}"
        for program, count in ((first, 1), (second, 2)):
            program.run(f"futures.update({{n: pool.submit({call}) for n in range({count})}})")
        assert wait_until(lambda: stats_of(first, *totals) == [2, 0])
        assert [client[2] for client in stats_of(first, "shared.clients")[0]] == [1, 2]
        go.touch()
        for program in (first, second):
            program.run("[each.result() for each in futures.values()]")
        late.run(f"futures.update({{0: pool.submit({call})}}) or futures[0].result()")
        assert stats_of(first, *names) == [1, 1, 0, 0]
        assert stats_of(second, *names) == [2, 2, 2, 0]
        assert stats_of(late, *names) == [1, 1, 0, 1]
        shared = [
            program.run("[each.record.shared for each in futures.values()]")
            for program in (first, second, late)
        ]
        assert shared == [[""], ["joined", "joined"], ["reused"]]
        for program in (first, second, late):
            assert stats_of(program, *totals) == [2, 1]
        assert len(log.read_text().splitlines()) == 1
        (row,) = listed()
        assert (row["joined"], row["reused"], row["queued"]) == (2, 1, 0)
        assert "    2 jobs joined a run, 1 job got a kept result\n" in compilepool("ps").stdout
        for program in (first, second, late):
            program.end()


def test_statistics_go_on_when_the_supervisor_dies() -> None:
    with programs(1) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (first,) = supervisors()
        assert stats_of(program, "shared.supervisor") == [first]
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: stats_of(program, "restarts")[0][0] == 1)
        assert stats_of(program, "shared.clients", "shared.supervisor") == [[], 0]
        program.run("pool.submit(jobs.where).result()")
        (second,) = supervisors()
        assert stats_of(program, "shared.supervisor", "done") == [second, 2]
        program.end()
