"""Statistics, and what is logged."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, PoolStats
from tests.proc import PATIENCE_S, pool_process, pool_processes, wait_until


def fail(kind: str) -> None:
    if kind == "raise":
        raise LookupError(kind)
    if kind == "crash":
        ctypes.string_at(0)
    os._exit(3)


def test_stats_of_a_pool_that_was_never_used_are_zero_and_start_nothing() -> None:
    with CompilePool(2) as pool:
        stats = pool.stats()
        assert not pool_processes("supervisor")
    assert stats.submitted == stats.done == stats.running == stats.queued == 0
    assert stats.memory.total == 0
    assert stats.first_result_seconds is None
    assert not any(stats.workers.values())
    assert str(stats)


def test_jobs_are_counted_by_how_they_ended() -> None:
    with CompilePool(2) as pool:
        good = [pool.submit(abs, number) for number in range(5)]
        bad = [pool.submit(fail, kind) for kind in ("raise", "raise", "crash", "exit")]
        slow = pool.options(timeout=0.05).submit(signal.pause)
        futures: list[CompileFuture[Any]] = [*good, *bad, slow]
        for future in futures:
            future.exception(PATIENCE_S)
            assert pool.stats().submitted == 10  # whoever has a result finds it counted
        stats = pool.stats()
        assert stats.done == 5
        assert stats.failed == {"LookupError": 2, "WorkerCrashed": 2, "JobTimeout": 1}
        assert stats.cancelled == stats.running == stats.queued == stats.retried == 0
        assert stats.run_seconds.max >= 0.05
        assert 0 < stats.run_seconds.p50 <= stats.run_seconds.p95 <= stats.run_seconds.max
        assert stats.first_result_seconds is not None
        assert wait_until(lambda: pool.stats().restarts.worker == 3)


def test_what_runs_and_what_waits_is_counted(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(2) as pool:
        futures = [pool.submit(lambda: wait_until(gate.exists)) for _ in range(5)]
        assert wait_until(lambda: pool.stats().running == 2)
        assert pool.stats().queued == 3
        assert pool.stats().max_queued >= 3
        assert pool.stats().workers["busy"] == 2
        futures[4].cancel()
        assert pool.stats().queued == 2
        assert pool.stats().cancelled == 1
        futures[0].cancel()
        assert wait_until(lambda: pool.stats().cancelled == 2)
        gate.touch()
        for future in futures[1:4]:
            assert future.result(PATIENCE_S)
        assert pool.stats().done == 3


def test_jobs_that_run_again_are_counted(tmp_path: Path) -> None:
    first = tmp_path / "first"

    def die_once() -> int:
        if first.exists():
            return 1
        first.touch()
        signal.pause()
        return 0

    with CompilePool(1) as pool:
        future = pool.options(retries=1).submit(die_once)
        assert wait_until(first.exists)
        os.kill(pool_process("worker"), signal.SIGKILL)
        assert future.result(PATIENCE_S) == 1
        assert pool.stats().retried == 1
        assert pool.stats().restarts.worker == 1


def test_the_memory_of_all_processes_is_told() -> None:
    def start() -> int:
        import subprocess

        return subprocess.Popen(["sleep", "1000"]).pid

    with CompilePool(2) as pool:
        pool.submit(start).result(PATIENCE_S)
        assert wait_until(lambda: min(pool.stats().memory) > 50_000)  # it has become `sleep`
        memory = pool.stats().memory
        assert memory.total == sum(memory)
        assert "MiB (PSS): supervisor" in str(pool.stats())


def test_deaths_of_supervisor_and_fork_server_are_counted() -> None:
    with CompilePool(1) as pool:
        assert pool.wait_ready(PATIENCE_S)
        os.kill(pool_process("fork server"), signal.SIGKILL)
        assert wait_until(lambda: pool.stats().restarts.fork_server == 1)
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        assert wait_until(lambda: pool.stats().restarts.supervisor == 1)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        assert pool.stats().done == 1


def test_a_callback_may_ask_for_stats() -> None:
    seen: list[PoolStats] = []
    with CompilePool(1) as pool:
        pool.submit(abs, 1).add_done_callback(lambda _: seen.append(pool.stats()))
    assert seen[0].done == 1


def test_stats_do_not_wait_for_ever_for_a_supervisor_that_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("compilepool.client.session.questions._VIEW_S", 0.05)
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        assert pool.stats().done == 1
        os.kill(supervisor, signal.SIGCONT)


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[tuple[str, str]]:
    return [
        (record.name, record.getMessage()) for record in caplog.records if record.levelno == level
    ]


def test_the_end_of_a_pool_is_logged_in_one_line_and_with_all_that_it_did(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "compilepool")
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        pool.submit(fail, "raise").exception(PATIENCE_S)
    told = messages(caplog, logging.INFO)
    (line,) = [text for name, text in told if name == "compilepool.client.session.statistics"]
    assert line == "the pool has ended: 2 jobs, 1 done, 1 LookupError"
    (report,) = [text for name, text in told if name == "compilepool.observe.stats"]
    assert "waited" in report
    assert "ran  " in report


def test_the_report_tells_of_deaths_also_when_the_supervisor_is_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "compilepool")
    pool = CompilePool(1)
    pool.submit(fail, "exit").exception(PATIENCE_S)
    assert wait_until(lambda: pool.stats().restarts.worker == 1)
    os.kill(pool_process("supervisor"), signal.SIGKILL)
    assert wait_until(lambda: pool.stats().restarts.supervisor == 1)
    pool.shutdown()
    (report,) = [
        text for name, text in messages(caplog, logging.INFO) if name == "compilepool.observe.stats"
    ]
    assert "1 supervisors, 0 fork servers, 1 workers" in report


def test_a_program_that_cannot_log_loses_no_job() -> None:
    def refuse(_record: logging.LogRecord) -> bool:
        raise LookupError("no log today")

    logger = logging.getLogger("compilepool.observe.job_log")
    logger.addFilter(refuse)
    logger.setLevel(logging.INFO)
    try:
        with CompilePool(1) as pool:
            error = pool.submit(fail, "raise").exception(PATIENCE_S)
            assert isinstance(error, LookupError)
            assert pool.stats().restarts.supervisor == 0
    finally:
        logger.removeFilter(refuse)
        logger.setLevel(logging.NOTSET)


def test_a_logger_of_one_module_hears_what_it_wants_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "compilepool")
    caplog.set_level(logging.DEBUG, "compilepool.supervisor.crew.crew")
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
    assert {record.name for record in caplog.records} == {"compilepool.supervisor.crew.crew"}


def test_nothing_is_logged_of_a_pool_that_had_no_jobs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compilepool")
    with CompilePool(1) as pool:
        pool.quiesce()
    assert not caplog.records


def test_jobs_and_processes_are_logged_with_names_and_pids(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "compilepool")
    with CompilePool(1) as pool:
        worker = pool.options(name="softmax").submit(os.getpid).result(PATIENCE_S)
        server = pool_process("fork server")
        pool.options(name="matmul").submit(fail, "crash").exception(PATIENCE_S)
        os.kill(server, signal.SIGKILL)
        assert wait_until(lambda: pool.stats().restarts.fork_server == 1)
    debug = messages(caplog, logging.DEBUG)
    assert any(
        name == "compilepool.observe.job_log"
        and text.startswith(f"job 'softmax' has ended in worker {worker} after ")
        for name, text in debug
    )
    crew = "compilepool.supervisor.crew.crew"
    assert (crew, f"worker 1 (pid {worker}) has started") in debug
    assert (crew, f"the fork server (pid {server}) is ready") in debug
    told = " ".join(text for _, text in messages(caplog, logging.INFO))
    assert f"job 'matmul' has failed in worker {worker}" in told
    assert "SIGSEGV" in told
    died = (crew, f"the fork server (pid {server}) has ended, exit code -9")
    assert died in messages(caplog, logging.WARNING)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_workers_and_fork_servers_have_to_say_is_logged(
    caplog: pytest.LogCaptureFixture, start_method: str
) -> None:
    caplog.set_level(logging.DEBUG, "compilepool")
    told = {"preload": ["json"], "initializer": abs, "initargs": [1]}
    with CompilePool(1, start_method=start_method, **told) as pool:  # type: ignore[arg-type] # parametrized
        worker = pool.submit(os.getpid).result(PATIENCE_S)
    debug = messages(caplog, logging.DEBUG)
    (initialized,) = [text for name, text in debug if name == "compilepool.worker.main"]
    assert initialized.startswith("the initializer took ")
    assert initialized.endswith(f" (pid {worker})")
    (imported,) = [text for name, text in debug if name == "compilepool.worker.bootstrap"]
    assert imported.startswith("imported json in ")
    assert imported.endswith(f"(pid {worker})") == (start_method == "spawn")


def test_a_pool_that_nobody_listens_to_sends_no_log_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "compilepool")
    with CompilePool(1) as pool:
        futures: list[CompileFuture[int]] = [pool.submit(abs, 1) for _ in range(10)]
        for future in futures:
            future.result(PATIENCE_S)
    assert not caplog.records
