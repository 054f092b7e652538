"""Jobs over three nodes: results, errors, limits and records as on one machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ray
from compilepool import (
    CompileFuture,
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    PoolClosed,
    RemoteTraceback,
    SerializationError,
    WorkerCrashed,
    as_completed,
)
from compilepool.integrations.ray import RayCompilePool
from tests.proc import wait_until
from tests.ray import ray_jobs as jobs
from tests.ray.clusters import Nodes

LONG_S = 120


@pytest.fixture(scope="module")
def pool(cluster: Nodes) -> Iterator[RayCompilePool]:
    """A pool over all nodes, for all tests: an actor takes a second of CPU time to start."""
    with RayCompilePool() as pool:
        assert pool.wait_ready(LONG_S)
        yield pool
    assert wait_until(lambda: not cluster.ours())


def test_a_thousand_compilations_with_a_segfault_a_hang_and_a_memory_hog(
    pool: RayCompilePool,
) -> None:
    bad: dict[int, CompileFuture[Any]] = {
        300: pool.options(name="segfault").submit(jobs.crash),
        500: pool.options(name="hang", timeout=1.0).submit(jobs.hang),
        700: pool.options(name="hog", memory_limit="300MiB").submit(jobs.eat),
    }
    good = [pool.submit(jobs.compile_c, number) for number in range(1000)]
    for number, future in enumerate(good):
        assert f"${number}," in future.result(LONG_S) or number == 0
        assert future.record.node
    crash = bad[300].exception(LONG_S)
    assert isinstance(crash, WorkerCrashed)
    assert crash.signal == signal.SIGSEGV
    assert "string_at" in crash.native_traceback
    assert "in crash" in crash.python_traceback
    assert "about to crash" in crash.log
    assert crash.folder
    hang = bad[500].exception(LONG_S)
    assert isinstance(hang, JobTimeout)
    assert hang.phase == "hanging"
    hog = bad[700].exception(LONG_S)
    assert isinstance(hog, MemoryLimitExceeded)
    assert hog.peak > 300 << 20
    for future in bad.values():
        error = future.exception()
        assert isinstance(error, CompilePoolError)
        assert f"node     {future.record.node}" in str(error)
    stats = pool.stats()
    used = Counter(future.record.node for future in good)
    assert set(used) == {node.name for node in stats.nodes}
    assert len(used) == 3


def test_results_and_exceptions_are_those_of_one_machine(pool: RayCompilePool) -> None:
    secret = object
    assert pool.submit(lambda value: [value, secret], 3).result(LONG_S) == [3, object]
    error = pool.submit(jobs.fail, "so").exception(LONG_S)
    assert isinstance(error, jobs.Failure)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail" in error.__cause__.text
    assert isinstance(pool.submit(threading.Lock).exception(LONG_S), SerializationError)
    with pytest.raises(SerializationError):
        pool.submit(id, threading.Lock())
    assert list(pool.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    assert sum(pool.map(abs, range(100), chunksize=7)) == sum(range(100))


def test_large_calls_and_results_pass_a_small_store(pool: RayCompilePool) -> None:
    """All nodes together have 240 MiB."""
    data = bytes(20 << 20)
    futures = [pool.submit(bytes.__add__, data, b"%d" % number) for number in range(12)]
    for number, future in enumerate(as_completed(futures)):
        assert len(future.result()) > len(data), number
    assert {future.result()[-1:] for future in futures} == {b"%d" % n for n in range(10)}
    assert len(pool.submit(bytes, 70 << 20).result(LONG_S)) == 70 << 20  # over the bound


def test_a_record_tells_times_by_this_process_and_phases(pool: RayCompilePool) -> None:
    begin = time.time()
    future = pool.options(timeout=0.5).submit(jobs.hang)
    assert isinstance(future.exception(LONG_S), JobTimeout)
    record = future.record
    assert record.started is not None
    assert record.ended is not None
    assert begin - 0.05 <= record.queued <= record.started + 0.05
    assert record.started + 0.4 < record.ended < time.time() + 0.05
    assert [phase.name for phase in record.phases] == ["hanging"]
    assert record.attempts == 1
    assert record.worker_pid


def test_cancel_ends_a_running_job_with_all_that_it_has_started(
    pool: RayCompilePool, tmp_path: Path
) -> None:
    file = tmp_path / "child"
    future = pool.submit(jobs.with_child, str(file))
    assert wait_until(file.exists)
    assert wait_until(future.running)
    child = int(file.read_text())
    assert future.cancel()
    assert future.cancelled()
    assert wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert pool.submit(abs, -1).result(LONG_S) == 1


def test_a_dump_shows_what_a_job_does(pool: RayCompilePool, tmp_path: Path) -> None:
    file = tmp_path / "go"
    future = pool.submit(jobs.wait_for, str(file))
    assert wait_until(future.running)
    dump = pool.dump(future)
    assert dump.state == "running"
    assert "wait_for" in dump.python_traceback
    file.touch()
    assert future.result(LONG_S) == str(file)
    assert pool.dump(future).state == "ended"


def test_a_key_has_one_node_and_a_flight_one_run(pool: RayCompilePool, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    view = pool.options(flight_key="kernel")
    futures = [view.submit(jobs.note, str(file), "run", 0.3) for _ in range(12)]
    assert {future.result(LONG_S) for future in futures} == {"run"}
    assert file.read_text() == "run\n"
    assert len({future.record.node for future in futures}) == 1
    assert Counter(future.record.shared for future in futures)["joined"] == 11
    assert view.submit(jobs.note, str(file), "run").result(LONG_S) == "run"  # it is kept


def test_a_key_that_crashes_again_and_again_is_not_run(pool: RayCompilePool) -> None:
    view = pool.options(key="bad")
    errors = [view.submit(jobs.crash).exception(LONG_S) for _ in range(4)]
    assert all(isinstance(error, WorkerCrashed) for error in errors)
    assert "was not run" in str(errors[3])
    pool.forget("bad")
    assert view.submit(abs, -1).result(LONG_S) == 1


def test_jobs_go_by_priority(cluster: Nodes, tmp_path: Path) -> None:
    file, gate = tmp_path / "order", tmp_path / "gate"
    head = cluster.cluster.head_node.node_id
    with RayCompilePool(1, nodes=[head]) as pool:
        first = pool.submit(jobs.wait_for, str(gate))
        assert wait_until(first.running)
        futures = [
            pool.options(priority=priority).submit(jobs.note, str(file), str(priority))
            for priority in (0, 5, 1, 5)
        ]
        gate.touch()
        assert [future.result(LONG_S) for future in futures] == ["0", "5", "1", "5"]
    assert file.read_text().split() == ["5", "5", "1", "0"]


def test_initializer_serializer_env_and_seed_reach_the_nodes(cluster: Nodes) -> None:
    with RayCompilePool(
        initializer=exec,
        initargs=("import os; os.environ['INITIALIZED'] = '1'",),
        env={"OF_POOL": "pool"},
        seed=7,
    ) as pool:
        look = pool.options(env={"OF_JOB": "job"}).submit(
            lambda: [__import__("os").environ.get(n) for n in ("INITIALIZED", "OF_POOL", "OF_JOB")]
        )
        assert look.result(LONG_S) == ["1", "pool", "job"]
        numbers = [pool.submit(lambda: __import__("random").random()) for _ in range(4)]
        drawn = [future.result(LONG_S) for future in numbers]
    assert len(set(drawn)) == 4
    with RayCompilePool(seed=7) as pool:
        pool.submit(abs, 1).result(LONG_S)
        again = [pool.submit(lambda: __import__("random").random()) for _ in range(4)]
        assert [future.result(LONG_S) for future in again] == drawn


def test_an_initializer_that_raises_fails_jobs(cluster: Nodes) -> None:
    with RayCompilePool(initializer=jobs.fail, initargs=("no",)) as pool:
        assert isinstance(pool.submit(abs, 1).exception(LONG_S), jobs.Failure)


def test_kill_workers_ends_running_jobs_and_cancels_the_others(cluster: Nodes) -> None:
    pool = RayCompilePool(1)
    futures = [pool.submit(time.sleep, 1000) for _ in range(8)]
    assert wait_until(lambda: sum(future.running() for future in futures) == 3)
    pool.kill_workers()
    assert all(future.done() for future in futures)
    kinds = Counter("cancelled" if f.cancelled() else type(f.exception()).__name__ for f in futures)
    assert kinds == {"cancelled": 5, "WorkersKilled": 3}
    with pytest.raises(PoolClosed):
        pool.submit(abs, 1)


def test_an_interrupted_block_ends_at_once(cluster: Nodes) -> None:
    def interrupted() -> None:
        with RayCompilePool() as pool:
            futures.append(pool.submit(jobs.hang))
            assert wait_until(futures[0].running)
            raise KeyboardInterrupt

    futures: list[CompileFuture[None]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [future] = futures
    assert isinstance(future.exception(), PoolClosed)


def test_a_dropped_pool_ends_after_its_last_job(cluster: Nodes) -> None:
    future = RayCompilePool().submit(jobs.pid_of_worker, 0.2)
    assert future.result(LONG_S)
    assert wait_until(lambda: len(cluster.actors()) == 3)  # those of the module's pool


def test_wait_ready_starts_all_workers_of_all_nodes(pool: RayCompilePool, cluster: Nodes) -> None:
    assert pool.wait_ready(LONG_S)
    assert pool.max_workers == 6
    assert len(cluster.processes("worker")) == 6
    pool.quiesce()
    assert wait_until(lambda: not cluster.processes("worker"))
    assert pool.submit(abs, -1).result(LONG_S) == 1


def test_a_fork_of_the_program_has_no_pool(pool: RayCompilePool) -> None:
    assert pool.submit(abs, -1).result(LONG_S) == 1
    pid = os.fork()
    if pid == 0:
        try:
            pool.submit(abs, -1)
        except PoolClosed:
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
    assert pool.submit(abs, -2).result(LONG_S) == 2


def test_options_are_checked(cluster: Nodes) -> None:
    with pytest.raises(TypeError, match="no option nonsense"):
        RayCompilePool(nonsense=1)
    with pytest.raises(ValueError, match="timeout must be"):
        RayCompilePool(timeout=-1)
    with pytest.raises(TypeError, match="nodes must be a list"):
        RayCompilePool(nodes="10.0.0.1")
    with pytest.raises(ValueError, match=r"not to 10\.255\.255\.1:6379"):
        RayCompilePool(address="10.255.255.1:6379")
    with pytest.raises(ValueError, match="Ray Client"):
        RayCompilePool(address="ray://10.255.255.1:10001")
    assert ray.is_initialized()
