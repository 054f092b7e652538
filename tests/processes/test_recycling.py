"""Workers that are replaced, after so many jobs or for their memory, and preloads that are."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, PreloadFailed
from tests.conftest import kernel_objects
from tests.proc import (
    PATIENCE_S,
    children,
    descendants,
    is_alive,
    pool_process,
    pool_processes,
    wait_until,
)

START_METHODS = pytest.mark.parametrize("start_method", ["fork", "spawn"])
JOBS = 10_000
BATCH = 500
MB = 1 << 20


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def zombies() -> list[int]:
    """Those below this process."""
    below = descendants(os.getpid())
    states = {}
    for pid in below:
        try:
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
    return [pid for pid, state in states.items() if state == "Z"]


def test_10000_jobs_with_ten_for_each_worker_lose_none_and_leave_nothing() -> None:
    with CompilePool(2, max_jobs_per_worker=10) as pool:

        def run(count: int) -> Counter[int]:
            """How many jobs ran in each worker."""
            futures = [pool.submit(os.getpid) for _ in range(count)]
            return Counter(future.result(PATIENCE_S) for future in futures)

        run(BATCH)
        assert wait_until(lambda: pool.stats().workers["leaving"] == 0)
        processes = [pool_process("supervisor"), pool_process("fork server")]
        files = [open_files(pid) for pid in processes]
        own = len(kernel_objects())
        memory = [resident(pid) for pid in processes]
        ran: Counter[int] = Counter()
        for _ in range(JOBS // BATCH):
            ran += run(BATCH)
        assert sum(ran.values()) == JOBS
        # A pid may be used again, but not so soon that it would matter.
        assert max(ran.values()) <= 10
        assert wait_until(lambda: pool.stats().workers["leaving"] == 0)
        stats = pool.stats()
        assert stats.done == JOBS + BATCH
        assert stats.recycled >= (JOBS + BATCH) / 10 - 4
        assert stats.restarts.worker == 0
        assert sum(stats.workers.values()) <= 2 * 2
        assert wait_until(lambda: not zombies())
        # The workers that there are hold some; there may be one or two more of them than before.
        per_worker = 8
        assert open_files(processes[0]) <= files[0] + 2 * per_worker
        assert open_files(processes[1]) <= files[1] + 2
        assert len(kernel_objects()) <= own
        for pid, before in zip(processes, memory, strict=True):
            assert resident(pid) < before + 4 * MB


@START_METHODS
def test_no_worker_runs_more_jobs_than_it_may(start_method: str) -> None:
    with CompilePool(2, max_jobs_per_worker=1, start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        futures = [pool.submit(os.getpid) for _ in range(12)]
        assert len({future.result(PATIENCE_S) for future in futures}) == 12


def test_never_more_jobs_run_at_once_than_there_may_be_workers(tmp_path: Path) -> None:
    """Although successors start beside those that they succeed."""

    def run(number: int) -> int:
        mark = tmp_path / str(number)
        mark.touch()
        running = len(list(tmp_path.iterdir()))
        mark.unlink()
        return running

    with CompilePool(2, max_jobs_per_worker=1) as pool:
        futures = [pool.submit(run, number) for number in range(40)]
        assert max(future.result(PATIENCE_S) for future in futures) <= 2


def test_the_successor_is_there_when_the_last_job_ends(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(1, max_jobs_per_worker=1) as pool:
        future = pool.submit(lambda: wait_until(gate.exists))
        assert wait_until(lambda: pool.stats().workers["idle"] == 1)
        assert pool.stats().workers["busy"] == 1
        gate.touch()
        assert future.result(PATIENCE_S)


@START_METHODS
def test_a_worker_that_keeps_too_much_memory_is_replaced(start_method: str) -> None:
    def keep(size: int) -> int:
        import builtins

        kept = getattr(builtins, "kept", [])
        kept.append(b"x" * size)
        builtins.kept = kept  # type: ignore[attr-defined]
        return os.getpid()

    def take(size: int) -> int:
        assert len(b"x" * size) == size
        return os.getpid()

    with CompilePool(1, max_worker_memory="60MiB", start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        first = pool.submit(keep, MB).result(PATIENCE_S)
        assert pool.submit(take, 100 * MB).result(PATIENCE_S) == first  # it has given it back
        assert pool.submit(keep, 20 * MB).result(PATIENCE_S) == first
        assert pool.submit(keep, 80 * MB).result(PATIENCE_S) == first
        # Between jobs, and its successor first.
        assert wait_until(lambda: pool.stats().workers["idle"] == 1 and pool.stats().recycled == 1)
        assert wait_until(lambda: first not in descendants(os.getpid()))
        assert pool.submit(keep, MB).result(PATIENCE_S) != first
        assert pool.stats().restarts.worker == 0


def test_what_is_preloaded_is_not_the_workers_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "large_module.py").write_text("ballast = b'x' * (100 << 20)")
    with CompilePool(1, preload=["large_module"], max_worker_memory="60MiB") as pool:
        workers = {pool.submit(os.getpid).result(PATIENCE_S) for _ in range(5)}
        assert len(workers) == 1


def version() -> tuple[int, int]:
    """What is preloaded, and in which process."""
    return sys.modules["versioned"].number, os.getpid()


@START_METHODS
def test_reload_has_later_jobs_see_what_the_files_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else two writes in a second are one
    module, gate = tmp_path / "versioned.py", tmp_path / "gate"
    module.write_text("number = 1")

    def wait() -> int:
        assert wait_until(gate.exists)
        return sys.modules["versioned"].number  # type: ignore[no-any-return]

    def see() -> int:
        return sys.modules["versioned"].number  # type: ignore[no-any-return]

    with CompilePool(2, preload=["versioned"], start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        assert pool.wait_ready(PATIENCE_S)
        running = pool.submit(wait)
        assert wait_until(running.running)
        assert pool.submit(see).result(PATIENCE_S) == 1
        module.write_text("number = 2")
        assert pool.submit(see).result(PATIENCE_S) == 1
        pool.reload()
        assert [pool.submit(see).result(PATIENCE_S) for _ in range(5)] == [2] * 5
        gate.touch()
        assert running.result(PATIENCE_S) == 1
        assert pool.wait_ready(PATIENCE_S)
        assert wait_until(lambda: len(children(pool_process("supervisor"))) == 1)
        assert {pool.submit(see).result(PATIENCE_S) for _ in range(10)} == {2}
        assert pool.stats().restarts == (0, 0, 0)


def test_reload_has_jobs_that_wait_run_on_the_new_preload_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module, gate, order = tmp_path / "versioned.py", tmp_path / "gate", tmp_path / "order"
    module.write_text("number = 1")

    def note(number: int) -> int:
        with order.open("a") as file:
            file.write(f"{number}\n")
        return sys.modules["versioned"].number  # type: ignore[no-any-return]

    with CompilePool(1, preload=["versioned"]) as pool:
        first = pool.submit(lambda: wait_until(gate.exists))
        assert wait_until(first.running)
        waiting = [pool.submit(note, number) for number in range(5)]
        module.write_text("number = 2")
        pool.reload()
        gate.touch()
        assert [future.result(PATIENCE_S) for future in waiting] == [2] * 5
    assert order.read_text().split() == list("01234")


def test_reload_mends_a_pool_whose_preload_was_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = tmp_path / "mended.py"
    module.write_text("raise RuntimeError('not yet')")
    with CompilePool(1, preload=["mended"]) as pool:
        assert isinstance(pool.submit(abs, 1).exception(PATIENCE_S), PreloadFailed)
        module.write_text("")
        pool.reload()
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        module.write_text("raise RuntimeError('broken again')")
        pool.reload()
        assert isinstance(pool.submit(abs, 1).exception(PATIENCE_S), PreloadFailed)


def test_the_snapshots_age_starts_anew_with_reload() -> None:
    with CompilePool(1) as pool:
        assert pool.stats().snapshot_seconds is None
        assert pool.wait_ready(PATIENCE_S)
        server = pool_process("fork server")
        before = pool.stats().snapshot_seconds
        assert before is not None
        pool.reload()
        assert pool.wait_ready(PATIENCE_S)
        assert pool_process("fork server") != server or wait_until(
            lambda: pool_process("fork server") != server
        )
        after = pool.stats().snapshot_seconds
        assert after is not None


def test_a_worker_that_is_wanted_while_its_fork_server_is_found_dead_comes_from_the_next() -> None:
    """What is heard last of a worker makes it have its last job, so that a successor starts."""

    def stop_supervisor() -> None:
        server = os.getppid()
        stat = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(stat[1]), signal.SIGSTOP)

    def is_stopped(pid: int) -> bool:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    with CompilePool(1, max_jobs_per_worker=7) as pool:
        futures: list[CompileFuture[Any]] = [pool.submit(abs, number) for number in range(4)]
        futures.append(pool.submit(stop_supervisor))
        futures += [pool.submit(abs, number) for number in range(6)]
        assert wait_until(lambda: bool(pool_processes("supervisor")))
        (supervisor,) = pool_processes("supervisor")
        assert wait_until(lambda: is_stopped(supervisor))
        (server,) = children(supervisor)
        os.kill(server, signal.SIGKILL)
        assert wait_until(lambda: not is_alive(server))
        os.kill(supervisor, signal.SIGCONT)
        # The one that stopped it may run again, and stop it again.
        assert wait_until(lambda: all(each.done() for each in futures) or wake(supervisor))


def wake(pid: int) -> bool:
    os.kill(pid, signal.SIGCONT)
    return False


@START_METHODS
def test_what_an_old_initializer_raises_does_not_break_a_pool_that_was_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    gate, started = tmp_path / "gate", tmp_path / "started"

    def start() -> None:
        try:
            started.open("x").close()
        except FileExistsError:
            return
        assert wait_until(gate.exists)
        raise LookupError("of the old code")

    with CompilePool(1, initializer=start, start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        pool.warm_up()
        assert wait_until(started.exists)
        pool.reload()
        gate.touch()
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
