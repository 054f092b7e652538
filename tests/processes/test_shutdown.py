"""How a pool ends: by shutdown, by garbage collection, by kill."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

import pytest

from compilepool import CompileFuture, CompilePool, PoolClosed, SupervisorDied, WorkerCrashed
from tests.proc import PATIENCE_S, children, pool_process, pool_processes, wait_until
from tests.programs.fifos import Fifo, run_until

START_METHODS = ["fork", "spawn"]


def make_a_pool() -> None:
    CompilePool(1)


def test_shutdown_waits_for_running_and_queued_jobs(fifo: Fifo) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, fifo.path)
    queued = pool.submit(run_until, Path("/dev/null"), "queued")
    fifo.is_reached()
    waiter = threading.Thread(target=pool.shutdown)
    waiter.start()
    assert wait_until(lambda: is_closed(pool))
    assert waiter.is_alive()
    assert not running.done()
    assert not queued.done()
    fifo.open()
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive()
    assert running.done()
    assert (running.result(), queued.result()) == ("ran", "queued")
    assert not pool_processes("supervisor")


def test_shutdown_without_wait_returns_at_once_and_the_jobs_end_all_the_same(fifo: Fifo) -> None:
    pool = CompilePool(1)
    future = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    pool.shutdown(wait=False)
    assert not future.done()
    fifo.open()
    assert future.result(PATIENCE_S) == "ran"
    assert wait_until(lambda: not pool_processes("supervisor"))


def test_cancel_futures_cancels_the_queued_jobs_and_lets_the_running_one_end(fifo: Fifo) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    queued = [pool.submit(run_until, fifo.path) for _ in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    done, _ = wait(queued, PATIENCE_S)
    assert len(done) == 3
    assert all(future.cancelled() for future in queued)
    assert not running.done()
    fifo.open()
    assert running.result(PATIENCE_S) == "ran"
    pool.shutdown()


def test_a_second_shutdown_does_nothing(fifo: Fifo) -> None:
    pool = CompilePool(1)
    pool.submit(run_until, Path("/dev/null")).result()
    pool.shutdown()
    pool.shutdown()
    pool.shutdown(wait=False, cancel_futures=True)
    unused = CompilePool(1)
    unused.shutdown()
    unused.shutdown()
    with pytest.raises(PoolClosed, match="make a new pool"):
        unused.submit(make_a_pool)


def test_a_second_shutdown_may_wait_and_cancel_where_the_first_did_not(fifo: Fifo) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    queued = pool.submit(run_until, fifo.path)
    pool.shutdown(wait=False)
    pool.shutdown(wait=False, cancel_futures=True)
    assert wait([queued], PATIENCE_S).done
    assert queued.cancelled()
    fifo.open()
    pool.shutdown()
    assert running.done()


def test_the_callback_of_a_future_may_shut_the_pool_down() -> None:
    pool = CompilePool(1)
    is_down = threading.Event()

    def shut_down(_: object) -> None:
        pool.shutdown(wait=True)
        is_down.set()

    future = pool.submit(run_until, Path("/dev/null"))
    future.add_done_callback(shut_down)
    assert future.result(PATIENCE_S) == "ran"
    assert is_down.wait(PATIENCE_S)
    pool.shutdown()
    assert not pool_processes("supervisor")


def test_the_callback_of_a_cancelled_future_may_shut_the_pool_down(fifo: Fifo) -> None:
    pool = CompilePool(1)
    future = pool.submit(run_until, fifo.path)
    fifo.is_reached()
    future.add_done_callback(lambda _: pool.shutdown())
    assert future.cancel()
    assert not pool_processes("supervisor")


def test_a_dropped_pool_still_finishes_its_jobs_and_leaves_nothing(fifo: Fifo) -> None:
    pool = CompilePool(1)
    futures = [pool.submit(run_until, fifo.path), pool.submit(run_until, Path("/dev/null"), "last")]
    fifo.is_reached()
    del pool
    gc.collect()
    fifo.open()
    assert [future.result(PATIENCE_S) for future in futures] == ["ran", "last"]
    assert wait_until(lambda: not pool_processes("supervisor"))


def test_a_pool_that_is_dropped_with_nothing_to_do_ends() -> None:
    pool = CompilePool(1)
    pool.submit(run_until, Path("/dev/null")).result()
    del pool
    gc.collect()
    assert wait_until(lambda: not pool_processes("supervisor"))


def test_eight_threads_may_use_a_pool_at_once() -> None:
    results: dict[int, list[str]] = {}

    def use(number: int) -> None:
        futures = [pool.submit(run_until, Path("/dev/null"), f"{number}.{i}") for i in range(25)]
        results[number] = [future.result() for future in futures]

    with CompilePool(2) as pool:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert results == {number: [f"{number}.{i}" for i in range(25)] for number in range(8)}


def test_threads_that_submit_while_the_pool_is_shut_down_get_a_result_or_pool_closed() -> None:
    pool = CompilePool(2)
    refused = threading.Semaphore(0)
    accepted: list[CompileFuture[str]] = []

    def use() -> None:
        try:
            while True:
                accepted.append(pool.submit(run_until, Path("/dev/null")))
                accepted[-1].result()
        except PoolClosed:
            refused.release()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: len(accepted) > 100)
    pool.shutdown()
    assert all(refused.acquire(timeout=PATIENCE_S) for _ in threads)
    assert {future.result(0) for future in accepted} == {"ran"}
    for thread in threads:
        thread.join(PATIENCE_S)


def is_closed(pool: CompilePool) -> bool:
    try:
        pool.warm_up()
    except PoolClosed:
        return True
    return False


@pytest.mark.parametrize("start_method", START_METHODS)
def test_kill_workers_ends_all_at_once(
    start_method: Literal["fork", "spawn"], tmp_path: Path
) -> None:
    pool = CompilePool(1, start_method=start_method)
    fifo = Fifo(tmp_path / "gate")
    running = pool.submit(run_until, fifo.path)
    waiting = pool.submit(max, 1, 2)
    fifo.is_reached()
    assert wait_until(running.running)
    pool.kill_workers()
    assert not children(os.getpid())
    with pytest.raises(BrokenProcessPool, match="'run_until' was ended by kill_workers") as killed:
        running.result(0)
    assert isinstance(killed.value, PoolClosed)
    assert waiting.cancelled()
    with pytest.raises(PoolClosed):
        pool.submit(max, 1, 2)
    pool.kill_workers()
    pool.shutdown()
    fifo.open()


def clean_up_at_sigterm(fifo: Path) -> str:
    def interrupt(_number: int, _frame: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGTERM, interrupt)
    try:
        return run_until(fifo)
    except InterruptedError:
        return "cleaned up"


@pytest.mark.parametrize("start_method", START_METHODS)
def test_terminate_workers_sends_sigterm_and_cancels_the_rest(
    start_method: Literal["fork", "spawn"], fifo: Fifo
) -> None:
    with CompilePool(1, start_method=start_method) as pool:
        running = pool.options(retries=3).submit(run_until, fifo.path)
        fifo.is_reached()
        waiting = [pool.submit(max, 1, 2) for _ in range(100)]
        pool.terminate_workers()
        with pytest.raises(PoolClosed):
            pool.submit(max, 1, 2)
        with pytest.raises(WorkerCrashed) as crash:
            running.result(PATIENCE_S)
        assert str(crash.value) == (
            "the worker that ran job 'run_until' was killed by SIGTERM (Terminated):"
            " terminate_workers has ended it"
        )
        assert (crash.value.signal, crash.value.folder) == (signal.SIGTERM, "")
        wait(waiting, PATIENCE_S)
        assert all(future.cancelled() for future in waiting)
        pool.terminate_workers()
    pool.terminate_workers()


def test_a_job_that_handles_sigterm_has_its_result(fifo: Fifo) -> None:
    with CompilePool(1) as pool:
        future = pool.submit(clean_up_at_sigterm, fifo.path)
        fifo.is_reached()
        pool.terminate_workers()
        assert future.result(PATIENCE_S) == "cleaned up"


def ignore_sigterm(path: Path, marks: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with marks.open("a") as file:
        file.write("run\n")
    run_until(path)


def test_a_terminated_pool_runs_no_job_again(fifo: Fifo, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with CompilePool(1) as pool:
        future = pool.submit(ignore_sigterm, fifo.path, marks)
        fifo.is_reached()
        pool.terminate_workers()
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        try:
            with pytest.raises(SupervisorDied):
                future.result(PATIENCE_S)
        finally:
            pool.kill_workers()
    assert marks.read_text() == "run\n"


def test_there_is_nothing_to_terminate_in_a_pool_that_has_not_started() -> None:
    pool = CompilePool(1)
    pool.options(timeout=1).terminate_workers()
    with pytest.raises(PoolClosed):
        pool.submit(max, 1, 2)
