"""How one job ends: cancelled, or with its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Literal

import pytest

from compilepool import CompilePool, NestedPoolError, SupervisorDied
from tests.proc import PATIENCE_S, pool_processes, wait_until
from tests.programs.fifos import Fifo, run_until
from tests.programs.running import Doomed, family_of

START_METHODS = ["fork", "spawn"]


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


def test_cancelling_a_queued_job_disturbs_no_other(fifo: Fifo) -> None:
    with CompilePool(1) as pool:
        running = pool.submit(run_until, fifo.path)
        fifo.is_reached()
        queued = [pool.submit(run_until, Path("/dev/null"), str(i)) for i in range(3)]
        assert queued[1].cancel()
        assert queued[1].cancelled()
        fifo.open()
        assert running.result(PATIENCE_S) == "ran"
        assert [queued[i].result(PATIENCE_S) for i in (0, 2)] == ["0", "2"]


def test_a_job_that_has_ended_cannot_be_cancelled() -> None:
    with CompilePool(1) as pool:
        future = pool.submit(run_until, Path("/dev/null"))
        future.result()
        assert not future.cancel()
        assert future.result() == "ran"


def use_a_pool() -> int:
    return CompilePool(1).submit(abs, -1).result()


def test_a_job_cannot_use_a_pool() -> None:
    with CompilePool(1) as pool, pytest.raises(NestedPoolError, match="inside a worker"):
        pool.submit(use_a_pool).result()


def test_a_job_that_must_not_run_twice_fails_with_its_supervisor(tmp_path: Path) -> None:
    with CompilePool(1, resubmit=False) as pool:
        fifo = Fifo(tmp_path / "gate")
        running = pool.submit(run_until, fifo.path)
        fifo.is_reached()
        os.kill(pool_processes("supervisor")[0], signal.SIGKILL)
        with pytest.raises(SupervisorDied, match="under job 'run_until'; find out what ends it"):
            running.result(PATIENCE_S)
        fifo.open()
        assert pool.submit(max, 1, 2).result(PATIENCE_S) == 2
