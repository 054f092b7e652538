"""Jobs that take more memory than they may."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, MemoryLimitExceeded
from tests.proc import PATIENCE_S, all_dead, children, pool_process, wait_until

# These jobs take as much as they get until somebody notices, and may not get it all at once.
pytestmark = pytest.mark.alone

MIB = 1 << 20
STEP = 100_000_000
MOST = 700 * MIB
GREEDY = """
import select
taken = []
while True:
    taken.append(b"x" * 100_000_000)
    select.select([], [], [], 0.05)
"""


def over_limit(future: CompileFuture[Any]) -> MemoryLimitExceeded:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, MemoryLimitExceeded), error
    return error


def take(count: int) -> int:
    """So many steps of 100 MB; for some time."""
    taken = []
    for _ in range(count):
        taken.append(b"x" * STEP)
        select.select([], [], [], 0.05)
    return sum(map(len, taken))


def test_a_job_that_takes_too_much_ends_with_its_peak(pool: CompilePool) -> None:
    future = pool.options(name="softmax", memory_limit="512MiB").submit(take, 1000)
    error = over_limit(future)
    assert isinstance(error, MemoryError)
    assert (error.job, error.limit) == ("softmax", 512 * MIB)
    assert 512 * MIB < error.peak < MOST
    assert future.record.peak_memory >= error.peak
    assert error.processes[0].name == "cp-worker"
    assert error.processes[0].pid == future.record.worker_pid
    assert "in take" in error.python_traceback
    assert str(error).startswith("job 'softmax' took ")
    assert "more than its memory_limit of 512 MiB" in str(error)


def run_greedy_child() -> None:
    subprocess.run(["sh", "-c", f"{sys.executable} -c '{GREEDY}'; true"], check=True)


def test_so_does_one_whose_grandchild_does(pool: CompilePool) -> None:
    error = over_limit(pool.options(memory_limit="512MiB").submit(run_greedy_child))
    assert 512 * MIB < error.peak < MOST
    largest = error.processes[0]
    assert largest.name.startswith("python")
    assert largest.bytes > 400 * MIB
    assert all_dead([process.pid for process in error.processes])


def fork_greedy_child() -> None:
    """It runs no program of its own, so it shares with its parent what that has."""
    pid = os.fork()
    if pid == 0:
        take(1000)
    os.waitpid(pid, 0)


def test_so_does_one_whose_forked_child_does(pool: CompilePool) -> None:
    error = over_limit(pool.options(memory_limit="512MiB").submit(fork_greedy_child))
    assert 512 * MIB < error.peak < MOST
    assert error.processes[0].pid != error.processes[-1].pid


def test_a_job_below_its_limit_goes_on(pool: CompilePool) -> None:
    future = pool.options(memory_limit="1GiB").submit(take, 5)
    assert future.result(PATIENCE_S) == 5 * STEP
    assert 450 * MIB < future.record.peak_memory < 600 * MIB


LARGE_MODULE = """
data = bytearray(b"x") * (300 << 20)
def read():
    return data[::4096].count(b"x")
"""


@pytest.fixture
def large_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that takes 300 MiB."""
    (tmp_path / "large_module.py").write_text(LARGE_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "large_module"


def use(module: str, count: int) -> int:
    import importlib

    importlib.import_module(module).read()
    return take(count)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_the_preload_does_not_count(large_module: str, start_method: Any) -> None:
    with CompilePool(2, preload=[large_module], start_method=start_method) as pool:
        limited = pool.options(memory_limit="512MiB")
        assert limited.submit(use, large_module, 3).result(PATIENCE_S) == 3 * STEP
        error = over_limit(limited.submit(use, large_module, 1000))
        assert 512 * MIB < error.peak < MOST


def fork_what_shares(module: str) -> int:
    """Six processes that share the preload, and what the job has: none of them takes anything."""
    own = b"x" * STEP
    use(module, 0)
    reader, writer = os.pipe()
    for _ in range(6):
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    os.close(reader)
    select.select([], [], [], 0.5)
    os.close(writer)
    for _ in range(6):
        os.wait()
    return len(own)


def test_what_forked_children_share_counts_once(large_module: str) -> None:
    with CompilePool(1, preload=[large_module], memory_limit="512MiB") as pool:
        assert pool.submit(fork_what_shares, large_module).result(PATIENCE_S) == STEP


def keep_in_module(count: int) -> int:
    """By value, so what it keeps must be kept where the worker finds it again."""
    import builtins

    kept = builtins.__dict__.setdefault("_kept", [])
    kept.extend(b"x" * STEP for _ in range(count))
    return os.getpid()


def test_what_earlier_jobs_have_left_does_not_count() -> None:
    with CompilePool(1, memory_limit="512MiB") as pool:
        pids = {pool.submit(keep_in_module, 4).result(PATIENCE_S) for _ in range(4)}
        assert len(pids) == 1
        future = pool.submit(take, 3)
        assert future.result(PATIENCE_S) == 3 * STEP
        assert future.record.peak_memory < 400 * MIB


def forget() -> None:
    import builtins

    builtins.__dict__.pop("_kept")


def test_what_an_earlier_job_has_freed_is_not_given_to_the_next() -> None:
    with CompilePool(1, memory_limit="1GiB") as pool:
        pool.submit(keep_in_module, 9).result(PATIENCE_S)
        pool.submit(forget).result(PATIENCE_S)
        error = over_limit(pool.options(memory_limit="300MiB").submit(take, 1000))
        assert error.peak < MOST


def fork_and_then_take(module: str) -> None:
    """What its children share counts several times, cheaply, until they are gone."""
    fork_what_shares(module)
    take(1000)


def test_what_its_children_have_shared_is_not_given_to_the_job(large_module: str) -> None:
    with CompilePool(1, preload=[large_module], memory_limit="512MiB") as pool:
        error = over_limit(pool.submit(fork_and_then_take, large_module))
        assert error.peak < MOST


def share_memory(count: int) -> None:
    import mmap

    taken = []
    for _ in range(count):
        taken.append(mmap.mmap(-1, STEP))
        taken[-1].write(b"x" * STEP)
        select.select([], [], [], 0.05)


def test_shared_memory_counts(pool: CompilePool) -> None:
    error = over_limit(pool.options(memory_limit="512MiB").submit(share_memory, 1000))
    assert error.peak > 512 * MIB


def test_other_jobs_lose_nothing(pool: CompilePool) -> None:
    bad = pool.options(memory_limit="256MiB").submit(take, 1000)
    good = [pool.submit(abs, -number) for number in range(16)]
    assert [future.result(PATIENCE_S) for future in good] == list(range(16))
    over_limit(bad)


def test_a_limit_below_what_an_idle_worker_takes_is_refused(large_module: str) -> None:
    with CompilePool(1, preload=[large_module], start_method="spawn") as pool:
        pool.submit(abs, -1).result(PATIENCE_S)
        with pytest.raises(ValueError, match="job 'softmax', 100 MiB, is less than what an idle"):
            pool.options(name="softmax", memory_limit="100MiB").submit(abs, -1)
        assert pool.options(memory_limit="400MiB").submit(abs, -1).result(PATIENCE_S) == 1


def test_the_error_can_be_pickled(pool: CompilePool) -> None:
    error = over_limit(pool.options(memory_limit="128MiB").submit(take, 1000))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


def test_workers_and_what_they_start_are_the_kernels_first_choice(pool: CompilePool) -> None:
    def adjustments() -> tuple[str, str]:
        own = Path("/proc/self/oom_score_adj").read_text()
        command = ["cat", "/proc/self/oom_score_adj"]
        return own, subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert pool.submit(adjustments).result(PATIENCE_S) == ("1000\n", "1000\n")
    supervisor = pool_process("supervisor")
    own = Path("/proc/self/oom_score_adj").read_text()
    assert Path(f"/proc/{supervisor}/oom_score_adj").read_text() == own
    (fork_server,) = children(supervisor)
    assert Path(f"/proc/{fork_server}/oom_score_adj").read_text() == own


def wakeups(pid: int) -> int:
    """How often a process has gone to sleep by itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("nonvoluntary_ctxt_switches")[0].split()[-1])


def has_opened_lock(pid: int) -> bool:
    """Whether a process has the locked file of a place where it can be met."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(fd).endswith(".lock"):
                return True
    return False


@pytest.mark.parametrize("has_job", [False, True])
def test_nothing_polls_while_no_job_runs_or_none_has_a_limit(tmp_path: Path, has_job: bool) -> None:
    limit = None if has_job else "1GiB"
    with CompilePool(1, memory_limit=limit, timeout=100) as pool:
        pool.submit(abs, -1).result(PATIENCE_S)
        jobs = [pool.submit(signal.pause)] if has_job else []
        assert wait_until(lambda: all(job.running() for job in jobs))
        supervisor = pool_process("supervisor")
        # After a second it opens, once, for those who want to look at the pool.
        assert wait_until(lambda: has_opened_lock(supervisor))
        select.select([], [], [], 0.5)
        before = wakeups(supervisor)
        select.select([], [], [], 1.0)  # there is no event for what does not happen
        assert wakeups(supervisor) == before
        for job in jobs:
            job.cancel()
