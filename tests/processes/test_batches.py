"""Many short jobs: they travel together, and nobody waits for the wrong one."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

from compilepool import CompileFuture, CompilePool
from compilepool.client.connection.connection import MAX_HELD
from compilepool.client.future import Condition
from compilepool.client.internals import supervisor_of
from compilepool.client.session.sending import PLENTY_FOR_WORKER
from tests.proc import PATIENCE_S, pool_process, wait_until
from tests.programs.gates import Gate, wait_at

PLENTY = MAX_HELD + PLENTY_FOR_WORKER  # from so many jobs for one worker on, they are held back


def a_job_that_waits(pool: CompilePool, gate: Gate) -> CompileFuture[None]:
    """It has begun."""
    future = pool.submit(wait_at, gate.path)
    assert wait_until(future.running)
    return future


def is_held(pool: CompilePool) -> bool:
    supervisor = supervisor_of(pool)
    return supervisor is not None and supervisor.has_held


def test_jobs_that_are_held_back_run_when_those_before_them_have(tmp_path: Path) -> None:
    with CompilePool(1) as pool, Gate(tmp_path / "gate") as gate:
        first = a_job_that_waits(pool, gate)
        rest = [pool.submit(abs, -number) for number in range(PLENTY + MAX_HELD // 2)]
        assert is_held(pool)
        gate.open()
        first.result(PATIENCE_S)
        assert [job.result(PATIENCE_S) for job in rest] == list(range(len(rest)))


def test_jobs_that_are_held_back_are_counted_and_can_be_cancelled(tmp_path: Path) -> None:
    with CompilePool(1) as pool, Gate(tmp_path / "gate") as gate:
        first = a_job_that_waits(pool, gate)
        rest = [pool.submit(abs, -1) for _ in range(PLENTY + MAX_HELD // 2)]
        assert is_held(pool)
        assert pool.stats().queued == len(rest)
        assert pool.stats().max_queued == len(rest)
        rest += [pool.submit(abs, -1) for _ in range(3)]
        assert is_held(pool)
        assert rest[-1].cancel()
        gate.open()
        first.result(PATIENCE_S)
        assert all(job.result(PATIENCE_S) == 1 for job in rest[:-1])


def test_a_job_of_a_higher_priority_is_not_held_back(tmp_path: Path) -> None:
    order: list[str] = []
    with CompilePool(1) as pool, Gate(tmp_path / "gate") as gate:
        first = a_job_that_waits(pool, gate)
        rest = [pool.submit(abs, -1) for _ in range(PLENTY + MAX_HELD // 2)]
        urgent = pool.options(priority=1).submit(abs, -2)
        assert not is_held(pool)
        urgent.add_done_callback(lambda _: order.append("urgent"))
        for job in rest:
            job.add_done_callback(lambda _: order.append("other"))
        pool.stats()  # the supervisor, which is asked, has read all before
        gate.open()
        first.result(PATIENCE_S)
        urgent.result(PATIENCE_S)
        for job in rest:
            job.result(PATIENCE_S)
    assert order[0] == "urgent"


def test_jobs_that_are_held_back_run_under_the_next_supervisor(tmp_path: Path) -> None:
    with CompilePool(1) as pool, Gate(tmp_path / "gate") as gate:
        a_job_that_waits(pool, gate)
        rest = [pool.submit(abs, -number) for number in range(PLENTY + MAX_HELD // 2)]
        assert is_held(pool)
        gate.open()
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        assert [job.result(PATIENCE_S) for job in rest] == list(range(len(rest)))


def test_threads_that_submit_at_once_all_get_their_own_results() -> None:
    def submit(start: int, results: list[tuple[int, int]]) -> None:
        jobs = [(number, pool.submit(abs, -number)) for number in range(start, start + 500)]
        results += [(number, job.result(PATIENCE_S)) for number, job in jobs]

    results: list[tuple[int, int]] = []
    with CompilePool(2) as pool:
        threads = [
            threading.Thread(target=submit, args=(1000 * each, results)) for each in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert len(results) == 2000
    assert all(number == result for number, result in results)


def test_short_jobs_behind_one_that_turns_out_to_be_long_run_elsewhere(tmp_path: Path) -> None:
    with CompilePool(2) as pool, Gate(tmp_path / "gate") as gate:
        for _ in range(50):
            pool.submit(abs, -1).result(PATIENCE_S)
        mixed: list[CompileFuture[int]] = []
        for number in range(40):
            if number == 5:
                long = pool.submit(wait_at, gate.path)
            mixed.append(pool.submit(abs, -number))
        assert [job.result(PATIENCE_S) for job in mixed] == list(range(40))
        assert not long.done()
        gate.open()
        long.result(PATIENCE_S)


def test_each_of_many_results_is_its_own_though_memfds_are_used_again() -> None:
    size = 200_000

    def swap(data: bytes) -> bytes:
        return data[::-1]

    with CompilePool(2) as pool:
        for _ in range(3):
            calls = [bytes([number]) * size + b"end" for number in range(20)]
            jobs = [pool.submit(swap, call) for call in calls]
            results = [job.result(PATIENCE_S) for job in jobs]
            assert results == [call[::-1] for call in calls]


def test_a_future_has_all_that_one_of_the_standard_library_has() -> None:
    stock = {name: type(value) for name, value in vars(Future()).items()}
    ours = {name: type(value) for name, value in vars(CompileFuture()).items()}
    assert {**stock, "_condition": Condition}.items() <= ours.items()


def test_workers_preempt_nobody_unless_the_program_has_a_policy_of_its_own() -> None:
    with CompilePool(1) as pool:
        assert pool.submit(os.sched_getscheduler, 0).result(PATIENCE_S) == os.SCHED_BATCH
    program = """
import os
from compilepool import CompilePool
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
with CompilePool(1) as pool:
    print(pool.submit(os.sched_getscheduler, 0).result(60) == os.SCHED_IDLE)
"""
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, text=True, timeout=PATIENCE_S) == "True\n"


def test_a_signal_while_jobs_are_sent_loses_no_other(tmp_path: Path) -> None:
    # Pickling would take an `Exception` for its own, and try another way.
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with CompilePool(1) as pool:
        pool.submit(abs, -1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        before = signal.signal(signal.SIGALRM, interrupt)
        os.kill(supervisor, signal.SIGSTOP)  # so that its socket fills up
        go_on = threading.Timer(0.6, os.kill, (supervisor, signal.SIGCONT))
        go_on.start()
        jobs: list[CompileFuture[int]] = []
        gc.disable()  # hypothesis hears of collections, and what is raised while it does is lost
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with contextlib.suppress(Interrupted):
                while True:
                    jobs.append(pool.submit(abs, -len(jobs)))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            gc.enable()
            go_on.join()
        assert len(jobs) > PLENTY
        assert [job.result(PATIENCE_S) for job in jobs] == list(range(len(jobs)))


def test_jobs_are_not_held_back_while_a_callback_takes_long(tmp_path: Path) -> None:
    """The only one that would send them is the thread that calls it."""
    in_callback, go_on = threading.Event(), threading.Event()

    def callback(_: object) -> None:
        in_callback.set()
        go_on.wait(PATIENCE_S)

    with CompilePool(1) as pool, Gate(tmp_path / "gate") as gate:
        first = a_job_that_waits(pool, gate)
        first.add_done_callback(callback)
        rest = [pool.submit(abs, -1) for _ in range(PLENTY + MAX_HELD // 2)]
        assert is_held(pool)
        gate.open()
        assert in_callback.wait(PATIENCE_S)
        assert not is_held(pool)
        rest += [pool.submit(abs, -1) for _ in range(3)]
        assert not is_held(pool)
        go_on.set()
        assert all(job.result(PATIENCE_S) == 1 for job in rest)


def test_what_is_ahead_of_one_worker_is_shared_out_when_others_are_idle() -> None:
    """Jobs that are not as short as the last one was, and yet end before they are called long."""

    def work() -> int:
        time.sleep(0.003)
        return os.getpid()

    with CompilePool(4) as pool:
        assert pool.wait_ready(PATIENCE_S)
        for _ in range(10):
            pool.submit(abs, -1).result(PATIENCE_S)
        jobs = [pool.submit(work) for _ in range(48)]
        pids = Counter(job.result(PATIENCE_S) for job in jobs)
    assert max(pids.values()) <= 24
