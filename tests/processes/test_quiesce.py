"""Quiesce and wake-up, the idle timer, and how many workers stay."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from compilepool import CompileFuture, CompilePool, CompilePoolError
from tests.proc import PATIENCE_S, children, descendants, pool_process, pool_processes, wait_until

JOBS_OF_A_THREAD = 150


def sleeps(pool: CompilePool) -> bool:
    """Whether nothing is left but a supervisor."""
    return pool.stats().is_quiesced and descendants(os.getpid()) == pool_processes("supervisor")


def ticks(pid: int) -> int:
    """The CPU time that a process has used, proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_pool_that_quiesces_leaves_one_process_and_wakes_up_for_a_job() -> None:
    with CompilePool(2) as pool:
        assert pool.wait_ready(PATIENCE_S)
        for _ in range(3):
            pool.quiesce()
            assert wait_until(lambda: sleeps(pool))
            assert not pool.ready
            supervisor = pool_process("supervisor")
            assert pool.submit(abs, -1).result(PATIENCE_S) == 1
            assert pool_process("supervisor") == supervisor


def test_a_pool_that_sleeps_uses_no_cpu() -> None:
    with CompilePool(2, idle_timeout=PATIENCE_S) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        pool.quiesce()
        assert wait_until(lambda: sleeps(pool))
        supervisor = pool_process("supervisor")
        before = ticks(supervisor)
        threading.Event().wait(1.0)  # as nothing happens, there is nothing to wait for
        assert ticks(supervisor) <= before + 1


def test_keep_warm_leaves_the_fork_server_with_its_preload() -> None:
    with CompilePool(2, preload=["json"]) as pool:
        assert pool.wait_ready(PATIENCE_S)
        server = pool_process("fork server")
        pool.quiesce(keep_warm=True)
        assert wait_until(lambda: not pool_processes("worker"))
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        assert pool_process("fork server") == server
        pool.quiesce(keep_warm=True)
        assert wait_until(lambda: not pool_processes("worker"))
        pool.quiesce()
        assert wait_until(lambda: sleeps(pool))


def test_wakeup_brings_all_workers_back() -> None:
    with CompilePool(2) as pool:
        pool.wakeup()
        assert pool.wait_ready(PATIENCE_S)
        pool.quiesce()
        pool.quiesce()
        assert wait_until(lambda: sleeps(pool))
        pool.wakeup()
        pool.wakeup()
        assert wait_until(lambda: pool.ready)
        assert len(pool_processes("worker")) == 2


def test_jobs_that_run_and_jobs_that_wait_end_before_their_workers_do(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def wait() -> str:
        assert wait_until(gate.exists)
        return "ran"

    with CompilePool(2) as pool:
        futures = [pool.submit(wait) for _ in range(6)]
        assert wait_until(futures[0].running)
        pool.quiesce()
        gate.touch()
        assert [future.result(PATIENCE_S) for future in futures] == ["ran"] * 6
        assert wait_until(lambda: sleeps(pool))


def test_quiesce_of_a_pool_that_has_not_started_starts_nothing() -> None:
    with CompilePool(2) as pool:
        pool.quiesce()
        pool.reload()
        assert not children(os.getpid())
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_job_that_was_started_meanwhile_ends_with_its_worker(tmp_path: Path) -> None:
    """What a job has left running goes when its worker does, and a worker exits in order."""
    left = tmp_path / "left"

    def leave() -> int:
        import atexit

        atexit.register(left.touch)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.pause()
        return pid

    with CompilePool(1) as pool:
        daemon = pool.submit(leave).result(PATIENCE_S)
        assert daemon in descendants(os.getpid())
        pool.quiesce()
        assert wait_until(lambda: sleeps(pool))
        assert left.exists()


def test_a_worker_that_does_not_exit_is_killed() -> None:
    def stay() -> None:
        import atexit

        atexit.register(signal.pause)

    with CompilePool(1) as pool:
        pool.submit(stay).result(PATIENCE_S)
        pool.quiesce()
        assert wait_until(lambda: sleeps(pool))


def test_a_pool_whose_supervisor_dies_while_it_quiesces_still_does(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(1) as pool:
        future = pool.submit(lambda: wait_until(gate.exists))
        assert wait_until(lambda: bool(pool_processes("worker")))
        pool.quiesce()
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        gate.touch()
        assert future.result(PATIENCE_S)
        assert wait_until(lambda: sleeps(pool))


def test_an_idle_pool_quiesces_by_itself() -> None:
    with CompilePool(2, idle_timeout=0.01) as pool:
        for _ in range(2):
            assert pool.submit(abs, -1).result(PATIENCE_S) == 1
            assert wait_until(lambda: sleeps(pool))
        assert pool.stats().quiesced_seconds > 0
        assert pool.wait_ready(PATIENCE_S)
        assert wait_until(lambda: sleeps(pool))


def test_a_job_keeps_the_pool_awake_however_long_it_takes(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(2, idle_timeout=0.05) as pool:
        assert pool.wait_ready(PATIENCE_S)
        future = pool.submit(lambda: wait_until(gate.exists))
        # The other worker has nothing to do, and goes.
        assert wait_until(lambda: sum(pool.stats().workers.values()) == 1)
        assert not pool.stats().is_quiesced
        gate.touch()
        assert future.result(PATIENCE_S)
        assert wait_until(lambda: sleeps(pool))


def test_the_workers_that_are_to_stay_do() -> None:
    with CompilePool(3, min_workers=1, idle_timeout=0.05) as pool:
        assert pool.wait_ready(PATIENCE_S)
        assert wait_until(lambda: pool.stats().workers["idle"] == 1)
        assert wait_until(lambda: len(pool_processes("worker")) == 1)
        (worker,) = pool_processes("worker")
        os.kill(worker, signal.SIGKILL)
        assert wait_until(lambda: pool_processes("worker") not in ([], [worker]))
        assert not pool.stats().is_quiesced
        pool.quiesce()  # but not when they are told to go
        assert wait_until(lambda: sleeps(pool))


def test_min_workers_are_there_from_the_first_job_on() -> None:
    with CompilePool(4, min_workers=3) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        assert wait_until(lambda: pool.stats().workers["idle"] == 3)


def test_a_pool_grows_as_jobs_need_it() -> None:
    with CompilePool(3) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        assert len(pool_processes("worker")) == 1
        barrier = [pool.submit(os.getpid) for _ in range(20)]
        assert len({future.result(PATIENCE_S) for future in barrier}) <= 3
        assert len(pool_processes("worker")) <= 3


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_every_job_ends_while_four_threads_quiesce_wake_up_submit_and_kill(
    start_method: str,
) -> None:
    chance = random.Random(5)
    seeds = [chance.random() for _ in range(4)]
    futures: list[CompileFuture[int]] = []

    def act(seed: float) -> None:
        chance = random.Random(seed)
        for number in range(JOBS_OF_A_THREAD):
            futures.append(pool.options(retries=100).submit(abs, -number))
            what = chance.randrange(12)
            if what == 0:
                pool.quiesce(keep_warm=chance.random() < 0.5)
            elif what == 1:
                pool.wakeup()
            elif what == 2:
                with contextlib.suppress(CompilePoolError, TimeoutError):
                    futures[-1].result(PATIENCE_S)
            elif what == 3:
                kind = chance.choice(["worker", "worker", "fork server"])
                with contextlib.suppress(IndexError, ProcessLookupError):
                    os.kill(chance.choice(pool_processes(kind)), signal.SIGKILL)
            elif what == 4 and number % 10 == 0:
                pool.reload()
            elif what == 5:
                futures[-1].cancel()
            elif what == 6:
                pool.stats()

    with CompilePool(3, start_method=start_method, idle_timeout=0.01) as pool:  # type: ignore[arg-type] # parametrized
        threads = [threading.Thread(target=act, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost = 0
        for future in futures:
            if not future.cancelled():
                error = future.exception(PATIENCE_S)
                assert error is None or isinstance(error, CompilePoolError), error
                lost += error is not None
        # Only the fork server's second death takes a job with it.
        assert lost < len(futures) / 2
        assert wait_until(lambda: sleeps(pool))
        stats = pool.stats()
        assert stats.submitted == 4 * JOBS_OF_A_THREAD
        assert stats.running == stats.queued == 0
