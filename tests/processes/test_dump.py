"""`CompilePool.dump`: what a job that seems to hang does just now."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, JobDump, report_phase
from tests.proc import PATIENCE_S, command_line, pool_process, pool_processes, wait_until
from tests.zoo import Where, call


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    """Its jobs are ended with the test, whatever they do: many of them hang."""
    with contextlib.suppress(KeyboardInterrupt), CompilePool(2) as pool:
        yield pool
        raise KeyboardInterrupt


def dumped(pool: CompilePool, future: CompileFuture[Any], *texts: str) -> JobDump:
    """The first dump of a job in which all `texts` stand: the job has got that far."""
    dumps: list[JobDump] = []

    def has_got_there() -> bool:
        dumps.append(pool.dump(future))
        return all(text in str(dumps[-1]) for text in texts)

    assert wait_until(has_got_there), dumps[-1]
    return dumps[-1]


@pytest.mark.parametrize("where", [Where.MAIN_THREAD, Where.MAIN_THREAD_WITH_GIL], ids=str)
def test_c_code_that_spins_is_seen_with_and_without_the_gil(
    pool: CompilePool, zoo: str, where: Where
) -> None:
    def spin() -> None:
        report_phase("register allocation")
        print("compiling")
        call(zoo, "spin", where)

    future = pool.options(name="softmax").submit(spin)
    dump = dumped(pool, future, "#0 spin (libzoo.so")
    assert (dump.job, dump.state, dump.phase) == ("softmax", "running", "register allocation")
    assert " in call\n" in dump.python_traceback
    assert " in spin\n" in dump.python_traceback
    assert "(running)" in dump.native_traceback.splitlines()[0]
    assert dump.log == "compiling\n"
    assert dump.missing == ()
    assert 0 < dump.phase_s <= dump.run_s
    first_line = str(dump).splitlines()[0]
    assert first_line.startswith("job 'softmax' runs, for ")
    assert "in phase 'register allocation' for " in first_line
    assert future.cancel()


def test_a_job_that_waits_for_a_child_is_seen_with_the_child(pool: CompilePool) -> None:
    future = pool.submit(subprocess.run, ["sh", "-c", "sleep 100; true"])
    dump = dumped(pool, future, "sleep 100 [")
    shell, sleep = dump.children
    assert (shell.command, sleep.command) == ("sh -c sleep 100; true", "sleep 100")
    assert sleep.parent_pid == shell.pid
    assert sleep.state == "S"
    assert sleep.age_s < PATIENCE_S
    assert "subprocess.py" in dump.python_traceback
    assert future.cancel()


def test_a_deadlock_of_python_threads_is_seen_on_both_sides(pool: CompilePool) -> None:
    def deadlock() -> None:
        locks = [threading.Lock(), threading.Lock()]
        both_have_one = threading.Barrier(2)

        def take(first: int, second: int) -> None:
            with locks[first]:
                both_have_one.wait()
                locks[second].acquire()

        other = threading.Thread(target=take, args=(1, 0), name="other")
        other.start()
        take(0, 1)

    future = pool.submit(deadlock)
    assert wait_until(lambda: pool.dump(future).python_traceback.count(" in take\n") == 2)
    dump = pool.dump(future)
    assert dump.native_traceback.count("most recent call first") == 2
    assert future.cancel()


def test_a_deadlock_in_c_is_seen(pool: CompilePool, zoo: str) -> None:
    future = pool.submit(call, zoo, "deadlock")
    # It has entered `deadlock`, but may run for a moment before it sleeps there.
    dump = dumped(pool, future, "deadlock (libzoo.so", "(sleeping)")
    assert "(sleeping)" in dump.native_traceback.splitlines()[0]
    assert future.cancel()


def test_a_job_goes_on_while_it_is_looked_into_again_and_again(pool: CompilePool) -> None:
    def work() -> int:
        deadline = time.monotonic() + 0.5
        rounds = 0
        while time.monotonic() < deadline:
            subprocess.run(["true"], check=True)
            time.sleep(0.001)
            rounds += 1
        return rounds

    future = pool.submit(work)
    states = set()
    while not future.done():
        states.add(pool.dump(future).state)
    assert future.result(PATIENCE_S) > 0
    assert "running" in states
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_jobs_that_wait_or_have_ended_say_so() -> None:
    with CompilePool(1) as pool:
        running = pool.submit(time.sleep, 1000)
        queued = pool.options(name="later").submit(abs, 1)
        dump = pool.dump(queued)
        assert (dump.job, dump.state) == ("later", "queued")
        assert str(dump) == "job 'later' waits: no worker has begun it"
        assert running.cancel()
        assert queued.result(PATIENCE_S) == 1
        assert str(pool.dump(queued)) == "job 'later' has ended"


def test_a_future_of_another_pool_is_refused(pool: CompilePool) -> None:
    with CompilePool(1) as other:
        future = other.submit(abs, 1)
        with pytest.raises(ValueError, match="of no job of this pool"):
            pool.dump(future)


def test_a_job_that_catches_no_signal_and_one_that_blocks_all_are_not_killed_by_a_dump(
    pool: CompilePool,
) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.read(os.open(gate, os.O_RDONLY), 1)

    def reset() -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.read(os.open(gate, os.O_RDONLY), 1)

    for job, reason in ((block, "blocked"), (reset, "nothing catches")):
        read, write = os.pipe()
        gate = f"/proc/{os.getpid()}/fd/{read}"
        future = pool.submit(job)
        dump = dumped(pool, future, "read")
        assert wait_until(lambda: pool.dump(future).missing != ())  # noqa: B023 - used at once
        assert reason in pool.dump(future).missing[0]
        assert "read" in dump.native_traceback
        os.write(write, b"x")
        assert future.result(PATIENCE_S) is None
        os.close(read)
        os.close(write)


def test_a_job_that_ends_while_it_is_looked_into_says_so(pool: CompilePool) -> None:
    future = pool.submit(signal.sigtimedwait, [signal.SIGUSR2], PATIENCE_S)
    dumped(pool, future, "runs, for")
    dumps: list[JobDump] = []
    asker = threading.Thread(target=lambda: dumps.append(pool.dump(future)))
    asker.start()
    assert wait_until(lambda: bool(pool_processes("inspector")) or bool(dumps))
    future.cancel()
    asker.join(PATIENCE_S)
    assert dumps[0].state in ("running", "ended")


def test_a_supervisor_that_does_not_answer_is_a_timeout(pool: CompilePool) -> None:
    future = pool.submit(time.sleep, 1000)
    assert wait_until(future.running)
    supervisor = pool_process("supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match="nothing was heard of job"):
            pool.dump(future, timeout=0.05)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert pool.dump(future).state == "running"
    assert future.cancel()


def test_many_dumps_at_once(pool: CompilePool) -> None:
    futures = [pool.submit(time.sleep, 1000) for _ in range(2)]
    assert wait_until(lambda: all(future.running() for future in futures))
    dumps: list[JobDump] = []
    threads = [
        threading.Thread(target=lambda future=future: dumps.append(pool.dump(future)))
        for future in futures * 5
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [dump.state for dump in dumps] == ["running"] * 10
    for future in futures:
        future.cancel()


def test_nothing_of_an_inspector_is_left(pool: CompilePool) -> None:
    future = pool.submit(time.sleep, 1000)
    assert wait_until(future.running)
    worker = pool_process("worker")
    pool.dump(future)
    assert not pool_processes("inspector")
    assert Path(f"/proc/{worker}/status").read_text().find("TracerPid:\t0") > 0
    assert command_line(worker) == "compilepool worker"
    future.cancel()
