"""How a pool ends: by shutdown, exit, Ctrl-C, fork, garbage collection; and how one job does."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Literal

import pytest

from compilepool import CompileFuture, CompilePool, NestedPoolError, PoolClosed, SupervisorDied
from tests.processes import PATIENCE_S, children, pool_processes, wait_until
from tests.programs.running import Doomed, Program, family_of

START_METHODS = ["fork", "spawn"]


class Gate:
    """A FIFO that jobs wait at: `run_until` is in it when `is_reached` has returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = -1
        os.mkfifo(path)

    def is_reached(self) -> None:
        """Wait until a job waits."""
        assert wait_until(self._try_to_open)

    def open(self) -> None:
        """Let those that wait go on."""
        os.close(self._end)
        self._end = -1

    def close(self) -> None:
        if self._end >= 0:
            self.open()

    def _try_to_open(self) -> bool:
        try:
            self._end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # ENXIO: nobody reads
            return False
        return True


def run_until(gate: Path, value: str = "ran") -> str:
    gate.read_text()
    return value


def run_on_with_children(pid_file: Path) -> None:
    """Never end, and have a child, a grandchild, and a daemon."""
    processes = [
        subprocess.Popen(["sh", "-c", "sleep 1000 & echo up; wait"], stdout=subprocess.PIPE),
        subprocess.Popen(["sh", "-c", "(sleep 1000 & echo up) &"], stdout=subprocess.PIPE),
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    processes[-1].wait()
    unfinished = pid_file.with_suffix(".unfinished")
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(pid_file)
    signal.pause()


def make_a_pool() -> None:
    CompilePool(1)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


# Shutdown


def test_shutdown_waits_for_running_and_queued_jobs(gate: Gate) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, gate.path)
    queued = pool.submit(run_until, Path("/dev/null"), "queued")
    gate.is_reached()
    waiter = threading.Thread(target=pool.shutdown)
    waiter.start()
    assert wait_until(lambda: is_closed(pool))
    assert waiter.is_alive()
    assert not running.done()
    assert not queued.done()
    gate.open()
    waiter.join(PATIENCE_S)
    assert not waiter.is_alive()
    assert running.done()
    assert (running.result(), queued.result()) == ("ran", "queued")
    assert not pool_processes("supervisor")


def test_shutdown_without_wait_returns_at_once_and_the_jobs_end_all_the_same(gate: Gate) -> None:
    pool = CompilePool(1)
    future = pool.submit(run_until, gate.path)
    gate.is_reached()
    pool.shutdown(wait=False)
    assert not future.done()
    gate.open()
    assert future.result(PATIENCE_S) == "ran"
    assert wait_until(lambda: not pool_processes("supervisor"))


def test_cancel_futures_cancels_the_queued_jobs_and_lets_the_running_one_end(gate: Gate) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, gate.path)
    gate.is_reached()
    queued = [pool.submit(run_until, gate.path) for _ in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    done, _ = wait(queued, PATIENCE_S)
    assert len(done) == 3
    assert all(future.cancelled() for future in queued)
    assert not running.done()
    gate.open()
    assert running.result(PATIENCE_S) == "ran"
    pool.shutdown()


def test_a_second_shutdown_does_nothing(gate: Gate) -> None:
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


def test_a_second_shutdown_may_wait_and_cancel_where_the_first_did_not(gate: Gate) -> None:
    pool = CompilePool(1)
    running = pool.submit(run_until, gate.path)
    gate.is_reached()
    queued = pool.submit(run_until, gate.path)
    pool.shutdown(wait=False)
    pool.shutdown(wait=False, cancel_futures=True)
    assert wait([queued], PATIENCE_S).done
    assert queued.cancelled()
    gate.open()
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


def test_the_callback_of_a_cancelled_future_may_shut_the_pool_down(gate: Gate) -> None:
    pool = CompilePool(1)
    future = pool.submit(run_until, gate.path)
    gate.is_reached()
    future.add_done_callback(lambda _: pool.shutdown())
    assert future.cancel()
    assert not pool_processes("supervisor")


def test_a_dropped_pool_still_finishes_its_jobs_and_leaves_nothing(gate: Gate) -> None:
    pool = CompilePool(1)
    futures = [pool.submit(run_until, gate.path), pool.submit(run_until, Path("/dev/null"), "last")]
    gate.is_reached()
    del pool
    gc.collect()
    gate.open()
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


# Cancelling


@pytest.mark.parametrize("start_method", START_METHODS)
def test_cancelling_a_running_job_ends_it_and_replaces_its_worker(
    start_method: Literal["fork", "spawn"], tmp_path: Path
) -> None:
    called_back: list[object] = []
    pid_file = tmp_path / "pid"
    with CompilePool(1, start_method=start_method) as pool:
        future = pool.submit(run_on_with_children, pid_file)
        future.add_done_callback(called_back.append)
        waiter = threading.Thread(target=wait, args=([future],))
        waiter.start()
        try:
            assert wait_until(lambda: pid_file.exists() and future.running())
            worker = int(pid_file.read_text())
            family = Doomed(family_of(worker))
        finally:
            is_cancelled = future.cancel()
        with family:
            assert is_cancelled
            assert len(family) == 5
            waiter.join(PATIENCE_S)
            assert not waiter.is_alive()
            assert future.cancelled()
            assert future.done()
            assert not future.running()
            with pytest.raises(CancelledError):
                future.result()
            assert family.wait()
            assert not family.alive()
        assert future.cancel(), "a second one is no other"
        assert called_back == [future]
        assert pool.submit(os.getpid).result(PATIENCE_S) != worker


def test_cancelling_a_queued_job_disturbs_no_other(gate: Gate) -> None:
    with CompilePool(1) as pool:
        running = pool.submit(run_until, gate.path)
        gate.is_reached()
        queued = [pool.submit(run_until, Path("/dev/null"), str(i)) for i in range(3)]
        assert queued[1].cancel()
        assert queued[1].cancelled()
        gate.open()
        assert running.result(PATIENCE_S) == "ran"
        assert [queued[i].result(PATIENCE_S) for i in (0, 2)] == ["0", "2"]


def test_a_job_that_has_ended_cannot_be_cancelled() -> None:
    with CompilePool(1) as pool:
        future = pool.submit(run_until, Path("/dev/null"))
        future.result()
        assert not future.cancel()
        assert future.result() == "ran"


def test_a_job_cannot_make_a_pool() -> None:
    with CompilePool(1) as pool, pytest.raises(NestedPoolError, match="inside a worker"):
        pool.submit(make_a_pool).result()


# The interpreter's exit


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize(
    ("way", "code", "last_words"),
    [
        ("end", 0, ""),
        ("end without futures", 0, ""),
        ("sys.exit in the block", 3, ""),
        ("sys.exit in another block", 3, ""),
        ("exception", 1, "LookupError: mine\n"),
        ("os._exit", 3, ""),
    ],
)
def test_a_program_that_ends_does_not_wait_for_jobs_and_leaves_nothing(
    start_method: str, way: str, code: int, last_words: str
) -> None:
    with Program("exits.py", way, start_method) as program:
        assert program.read_line() == "ready"
        with Doomed(family_of(program.pid)) as family:
            assert len(family) >= 5
            program.write("\n")
            assert program.wait() == code
            assert family.wait()
            assert not family.alive()
        stderr = program.stderr()
        assert stderr.endswith(last_words)
        assert stderr.count("Traceback") == (1 if last_words else 0)
        assert bool(stderr) == bool(last_words)
        assert program.rest() == ""


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("state", ["busy", "starting"])
def test_ctrl_c_in_a_terminal_shows_one_traceback_and_leaves_nothing(
    start_method: str, state: str
) -> None:
    with Program("terminal.py", start_method, state, is_in_terminal=True) as program:
        if state == "busy":
            assert [program.read_line() for _ in range(2)] == ["ready", "ready"]
        else:
            assert program.read_line() == "starting"
        with Doomed(family_of(program.pid)) as family:
            program.write("\x03")
            shown = program.rest()  # all of it: nobody has the terminal open any more
            assert family.wait()
        assert program.wait() == -signal.SIGINT
        if state == "starting":
            shown = shown.replace("ready\r\n", "")  # of a job that was quicker than the key
        # The terminal's echo of the key, and one traceback without another within it.
        assert re.fullmatch(
            r"\^C(\r\n)?Traceback \(most recent call last\):\r\n(  .*\r\n)+KeyboardInterrupt\r\n",
            shown,
        ), shown


# Forks of the client


def test_a_forked_child_has_no_use_of_the_pool_and_disturbs_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "copies", str(gate)) as program:
        assert program.read_line() == "paused"
        program.write("\n")
        assert program.read_line() == "ended: 3"
        for name, job in ("running", "pause"), ("waiting", "add"):
            said = program.read_line()
            assert said.startswith(f"{name}: PoolClosed: job '{job}' belongs to the process that")
            assert said.endswith("make a new pool here")
        said = program.read_line()
        assert re.fullmatch(
            f"submit: .*this pool belongs to process {program.pid}, .*; make a new pool here", said
        )
        assert program.read_line() == "cancel: False"
        assert program.read_line() == "own: 15"
        assert program.read_line() == "own, left: 19"
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: 5, 7, 2"
        assert program.wait() == 0
        assert_quiet(program)


def test_callbacks_are_not_called_in_a_forked_child(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "with_callback", str(gate)) as program:
        assert program.read_line() == "paused"
        program.write("\n")
        assert program.read_line().startswith("child: PoolClosed")
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "called back with 5"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_future_whose_result_is_just_being_read_ends_in_a_forked_child() -> None:
    with Program("forking.py", "while_reading") as program:
        assert program.read_line().startswith("child: PoolClosed")
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: unpickled"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_forked_child_may_go_on_with_the_parents_iteration(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Program("forking.py", "within_as_completed", str(gate)) as program:
        assert sorted([program.read_line(), program.read_line()]) == ["first: 3", "paused"]
        program.write("\n")
        assert [program.read_line() for _ in range(2)] == ["child: PoolClosed"] * 2
        assert program.read_line() == "child exited with 0"
        assert program.read_line() == "parent: [5, 7]"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_program_may_fork_while_other_threads_use_the_pool() -> None:
    with Program("forking.py", "under_load") as program:
        assert program.read_line() == "exit codes {0}, wrong results []"
        assert program.wait() == 0
        assert_quiet(program)


def test_a_pool_works_in_a_daemonic_process_of_multiprocessing() -> None:
    with Program("forking.py", "daemonic") as program:
        assert program.read_line() == "in daemonic child: 3"
        assert program.read_line() == "exit code 0"
        assert program.wait() == 0
        assert_quiet(program)


def assert_quiet(program: Program) -> None:
    assert program.stderr() == ""
    assert program.rest() == ""
    assert not children(program.pid)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_kill_workers_ends_all_at_once(
    start_method: Literal["fork", "spawn"], tmp_path: Path
) -> None:
    pool = CompilePool(1, start_method=start_method)
    gate = Gate(tmp_path / "gate")
    running = pool.submit(run_until, gate.path)
    waiting = pool.submit(max, 1, 2)
    gate.is_reached()
    pool.kill_workers()
    assert not children(os.getpid())
    for future in (running, waiting):
        with pytest.raises(PoolClosed):
            future.result(0)
    with pytest.raises(PoolClosed):
        pool.submit(max, 1, 2)
    pool.kill_workers()
    pool.shutdown()
    gate.open()


def test_a_job_that_must_not_run_twice_fails_with_its_supervisor(tmp_path: Path) -> None:
    with CompilePool(1, resubmit=False) as pool:
        gate = Gate(tmp_path / "gate")
        running = pool.submit(run_until, gate.path)
        gate.is_reached()
        os.kill(pool_processes("supervisor")[0], signal.SIGKILL)
        with pytest.raises(SupervisorDied, match="under job 'run_until'; find out what ends it"):
            running.result(PATIENCE_S)
        gate.open()
        assert pool.submit(max, 1, 2).result(PATIENCE_S) == 2
