"""Warm-up, and who waits for it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from compilepool import CompilePool, PoolClosed, PreloadFailed, SupervisorDied, WorkerCrashed
from compilepool.client.internals import first_worker
from compilepool.client.session.processes import Warmth
from compilepool.wire.messages import Readiness
from tests.proc import PATIENCE_S, pool_process, pool_processes, wait_until

START_METHODS = pytest.mark.parametrize("start_method", ["fork", "spawn"])


def refuse() -> None:
    raise LookupError("no licence")


@START_METHODS
def test_wait_ready_returns_when_all_workers_have_started(start_method: str) -> None:
    with CompilePool(3, start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        assert not pool.ready
        assert pool.wait_ready(PATIENCE_S)
        assert pool.ready
        assert pool.stats().workers == {"starting": 0, "idle": 3, "busy": 0, "leaving": 0}


def test_warm_up_returns_before_anything_has_started() -> None:
    with CompilePool(2) as pool:
        pool.warm_up()
        assert not pool.ready
        pool.warm_up()
        assert pool.wait_ready(PATIENCE_S)


def test_a_job_runs_as_soon_as_one_worker_is_there(tmp_path: Path) -> None:
    """The other one does not come before the job has ended."""
    gate = tmp_path / "gate"
    first = tmp_path / "first"

    def start() -> None:
        try:
            first.open("x").close()
        except FileExistsError:
            assert wait_until(gate.exists)

    with CompilePool(2, initializer=start) as pool:
        pool.warm_up()
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        assert not pool.ready
        gate.touch()
        assert pool.wait_ready(PATIENCE_S)


def test_wait_ready_gives_up_when_its_time_is_over(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(1, initializer=lambda: wait_until(gate.exists)) as pool:
        assert not pool.wait_ready(0.05)
        gate.touch()
        assert pool.wait_ready(PATIENCE_S)


def test_wait_ready_ends_when_the_pool_quiesces(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(1, initializer=lambda: wait_until(gate.exists)) as pool:
        ready: list[bool] = []
        waiter = threading.Thread(target=lambda: ready.append(pool.wait_ready()))
        waiter.start()
        assert wait_until(lambda: bool(pool_processes("worker")))
        pool.quiesce()
        waiter.join(PATIENCE_S)
        assert ready == [False]
        gate.touch()


def test_wait_ready_raises_what_the_initializer_has_raised() -> None:
    with CompilePool(2, initializer=refuse) as pool:
        for _ in range(2):  # it says so again to whoever asks later
            with pytest.raises(LookupError, match="no licence"):
                pool.wait_ready(PATIENCE_S)


def test_wait_ready_raises_why_a_preload_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("import no_such_module_at_all")
    with (
        CompilePool(2, preload=["broken_module"]) as pool,
        pytest.raises(PreloadFailed, match="no_such_module_at_all"),
    ):
        pool.wait_ready(PATIENCE_S)


def test_wait_ready_raises_why_workers_die_while_they_start() -> None:
    with (
        CompilePool(2, initializer=lambda: os._exit(7)) as pool,
        pytest.raises(WorkerCrashed, match="7"),
    ):
        pool.wait_ready(PATIENCE_S)


def test_workers_that_cannot_be_started_are_not_tried_for_ever(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"

    def start() -> None:
        with attempts.open("a") as file:
            file.write("x")
        os._exit(7)

    with CompilePool(2, initializer=start) as pool:
        with pytest.raises(WorkerCrashed):
            pool.wait_ready(PATIENCE_S)
        assert wait_until(lambda: not any(pool.stats().workers.values()))
        tried = len(attempts.read_text())
        with pytest.raises(WorkerCrashed):  # but anew when somebody asks for them
            pool.wait_ready(PATIENCE_S)
        assert len(attempts.read_text()) > tried


def test_a_warm_worker_that_is_killed_is_replaced() -> None:
    with CompilePool(2) as pool:
        assert pool.wait_ready(PATIENCE_S)
        for count in range(1, 4):
            victim = pool_processes("worker")[0]
            os.kill(victim, signal.SIGKILL)
            assert wait_until(lambda: pool.stats().restarts.worker == count)  # noqa: B023
            assert wait_until(lambda: pool.ready)
            assert pool.stats().workers["idle"] == 2
            assert victim not in pool_processes("worker")


def test_a_worker_that_nobody_has_asked_for_is_not_replaced() -> None:
    with CompilePool(2) as pool:
        os.kill(pool.submit(os.getpid).result(PATIENCE_S), signal.SIGKILL)
        assert wait_until(lambda: pool.stats().restarts.worker == 1)
        assert not any(pool.stats().workers.values())


def test_waiting_goes_on_when_the_supervisor_dies_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(1, initializer=lambda: wait_until(gate.exists)) as pool:
        pool.warm_up()
        ready: list[bool] = []
        waiter = threading.Thread(target=lambda: ready.append(pool.wait_ready(PATIENCE_S)))
        waiter.start()
        assert wait_until(lambda: bool(pool_processes("worker")))
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        gate.touch()
        waiter.join(PATIENCE_S)
        assert ready == [True]
        assert pool.stats().restarts.supervisor == 1


def test_waiting_ends_with_a_typed_error_when_supervisors_die_again_and_again(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"

    def start() -> None:
        with gate.open():
            pass

    os.mkfifo(gate)
    with CompilePool(1, initializer=start) as pool:
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                pool.wait_ready(PATIENCE_S)
            except SupervisorDied as error:
                errors.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        before = 0
        for _ in range(2):
            assert wait_until(
                lambda: bool(pids := pool_processes("supervisor")) and pids[0] != before  # noqa: B023
            )
            before = pool_process("supervisor")
            assert wait_until(lambda: bool(pool_processes("worker")))
            os.kill(before, signal.SIGKILL)
        waiter.join(PATIENCE_S)
        assert len(errors) == 1


def test_wait_ready_ends_where_workers_die_soon_after_they_have_started() -> None:
    def die_soon() -> None:
        threading.Timer(0.001, os._exit, [3]).start()

    def wait(pool: CompilePool) -> None:
        while pool.wait_ready(PATIENCE_S):  # they may be there for a moment
            pass

    error = pytest.raises(WorkerCrashed, match="exited with code 3")
    with CompilePool(2, initializer=die_soon) as pool, error:
        wait(pool)


def test_what_was_told_before_a_warm_up_does_not_answer_it() -> None:
    warmth = Warmth()
    first, told = warmth.expect()
    second, again = warmth.expect()
    assert again is told
    warmth.told(first, Readiness.ALL)
    warmth.failed(first, LookupError())
    assert not told.done()
    warmth.told(second, Readiness.ALL)
    assert told.result(0)


def test_a_pool_stays_warm_when_its_supervisor_dies_under_a_job(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with CompilePool(3) as pool:
        assert pool.wait_ready(PATIENCE_S)
        future = pool.submit(lambda: wait_until(gate.exists))
        assert wait_until(future.running)
        os.kill(pool_process("supervisor"), signal.SIGKILL)
        assert wait_until(lambda: pool.stats().restarts.supervisor == 1)
        gate.touch()
        assert future.result(PATIENCE_S)
        assert wait_until(lambda: pool.stats().workers["idle"] == 3)


def test_a_callback_that_would_wait_for_itself_is_told_so() -> None:
    raised: list[str] = []

    def wait(_future: object) -> None:
        try:
            pool.wait_ready()
        except RuntimeError as error:
            raised.append(str(error))

    with CompilePool(1) as pool:
        pool.submit(abs, 1).add_done_callback(wait)
    assert len(raised) == 1
    assert "wait for itself" in raised[0]


def test_a_pool_that_is_closed_cannot_be_warmed_up() -> None:
    pool = CompilePool(1)
    pool.shutdown()
    for call in (pool.warm_up, pool.wakeup, pool.wait_ready):
        with pytest.raises(PoolClosed):
            call()
    pool.quiesce()
    pool.reload()
    assert not pool.ready
    assert pool.stats().submitted == 0


def test_the_first_worker_is_told_before_all_are_there() -> None:
    warmth = Warmth()
    first = warmth.expect_first()
    number, all_of_them = warmth.expect()
    warmth.told(number, Readiness.NONE)
    assert not first.done()
    warmth.told(number, Readiness.SOME)
    assert first.result(0)
    assert not all_of_them.done()
    assert not warmth.is_warm
    warmth.told(number, Readiness.ALL)
    assert all_of_them.result(0)
    assert warmth.is_warm


def test_who_waits_for_the_first_worker_is_told_if_that_is_in_vain() -> None:
    warmth = Warmth()
    for end in (warmth.lost, warmth.quiesced):
        first = warmth.expect_first()
        end()
        assert not first.result(0)
    first = warmth.expect_first()
    number, _ = warmth.expect()
    warmth.failed(number, LookupError())
    with pytest.raises(LookupError):
        first.result(0)


def test_a_job_can_run_when_the_first_worker_is_told(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def let_one_in() -> None:
        if mkdir(tmp_path / "first"):
            return
        wait_until(gate.exists)

    with CompilePool(2, initializer=let_one_in) as pool:
        first = first_worker(pool)
        assert first.result(PATIENCE_S)
        assert not pool.ready
        assert pool.submit(max, 1, 2).result(PATIENCE_S) == 2
        gate.touch()
        assert pool.wait_ready(PATIENCE_S)


def mkdir(path: Path) -> bool:
    """Whether it was this call that has made the folder."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True
