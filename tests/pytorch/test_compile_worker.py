"""`SubprocPool` does what PyTorch's own does (test/inductor/test_compile_worker.py), and more."""

from __future__ import annotations

import ctypes
import operator
import os
import pickle
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch._inductor import config
from torch._inductor.compile_worker import subproc_pool as reference

import compilepool
from compilepool import SupervisorDied, WorkerCrashed
from compilepool.integrations.torch.compile_worker.subproc_pool import (
    AnyPool,
    SubprocException,
    SubprocKind,
    SubprocPickler,
    SubprocPool,
    TestException,
    raise_testexc,
)
from compilepool.integrations.torch.kernel_future import KernelFailed
from tests.proc import PATIENCE_S, descendants, is_alive, wait_until

PATIENCE_WITH_TORCH_S = 3 * PATIENCE_S


def ignore_sigterm_and_hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()


def touch_and_hang(path: Path) -> None:
    path.touch()
    while True:
        signal.pause()


def say(text: str) -> None:
    print(text)


def crash() -> None:
    ctypes.string_at(0)


def who_am_i() -> tuple[bool, bool, bool, str | None]:
    from torch._inductor.compile_worker import utils

    import compilepool

    return (
        utils.in_toplevel_process(),
        compilepool.in_toplevel_process(),
        utils.has_parent_changed(),
        os.environ.get("TORCH_WARM_POOL"),
    )


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[SubprocPool]:
    with config.patch("quiesce_async_compile_time", 0.1):
        pool = SubprocPool(2, quiesce=getattr(request, "param", False))
        yield pool
        pool.shutdown()


ALSO_QUIESCING = pytest.mark.parametrize("pool", [False, True], indirect=True)


def result(future: Any) -> Any:
    return future.result(PATIENCE_WITH_TORCH_S)


@ALSO_QUIESCING
def test_jobs_return(pool: SubprocPool) -> None:
    added = pool.submit(operator.add, 100, 1)
    subtracted = pool.submit(operator.sub, 100, 1)
    assert result(added) == 101
    assert result(subtracted) == 99
    assert result(pool.submit(dict, a=1)) == {"a": 1}
    assert isinstance(pool, AnyPool)


def test_an_exception_of_a_job_has_the_name_of_its_class_in_the_text(pool: SubprocPool) -> None:
    with pytest.raises(SubprocException) as caught:
        result(pool.submit(raise_testexc))
    for module in (SubprocPool.__module__, reference.__name__):
        assert f"{module}.TestException" in str(caught.value)
    assert isinstance(caught.value, reference.SubprocException)
    assert isinstance(caught.value.error, TestException)
    assert str(caught.value.with_name("softmax")).startswith(
        "An exception occurred in a subprocess:\n\nName=softmax\nTraceback"
    )


def test_a_pool_is_usable_after_a_crash(pool: SubprocPool) -> None:
    with pytest.raises(SubprocException, match="exited with code 1") as caught:
        result(pool.submit(os._exit, 1))
    assert isinstance(caught.value.error, WorkerCrashed)
    assert result(pool.submit(operator.add, 100, 1)) == 101


def test_a_crash_is_reported_with_its_signal_and_fails_no_other(pool: SubprocPool) -> None:
    crashed = pool.submit(crash)
    others = [pool.submit(operator.add, number, 1) for number in range(8)]
    with pytest.raises(SubprocException, match=r"SIGSEGV \(Segmentation fault\)"):
        result(crashed)
    assert [result(other) for other in others] == [*range(1, 9)]


@ALSO_QUIESCING
def test_jobs_end_when_the_pool_quiesces_again_and_again(pool: SubprocPool) -> None:
    added = pool.submit(operator.add, 100, 1)
    pool.quiesce()
    pool.wakeup()
    subtracted = pool.submit(operator.sub, 100, 1)
    pool.quiesce()
    pool.quiesce()
    pool.wakeup()
    again = pool.submit(operator.sub, 100, 2)
    assert (result(added), result(subtracted), result(again)) == (101, 99, 98)
    pool.quiesce()
    assert result(pool.submit(operator.sub, 100, 3)) == 97


def test_a_quiet_pool_has_no_workers_and_keeps_what_it_has_imported() -> None:
    with config.patch("quiesce_async_compile_time", 0.1):
        pool = SubprocPool(2, quiesce=True)
        try:
            assert result(pool.submit(operator.add, 100, 1)) == 101
            assert wait_until(lambda: pool.pool.stats().is_quiesced)
            assert wait_until(lambda: len(descendants(pool.process.pid)) == 1)
            assert result(pool.submit(os.getpid)) != os.getpid()
            assert pool.pool.stats().restarts.fork_server == 0
        finally:
            pool.shutdown()


def test_a_pool_without_any_job_becomes_quiet_too() -> None:
    with config.patch("quiesce_async_compile_time", 0.1):
        pool = SubprocPool(2, quiesce=True)
        assert wait_until(lambda: pool.pool.stats().is_quiesced, PATIENCE_WITH_TORCH_S)
        pool.shutdown()


def test_the_sidecar_is_single_threaded() -> None:
    pool = SubprocPool(2)
    try:
        assert len(os.listdir(f"/proc/{pool.process.pid}/task")) == 1
        fork_server = result(pool.submit(os.getppid))
        assert len(os.listdir(f"/proc/{fork_server}/task")) == 1
    finally:
        pool.shutdown()


def test_a_sidecar_that_is_killed_fails_what_was_pending_and_nothing_later(tmp_path: Path) -> None:
    started = tmp_path / "started"
    pool = SubprocPool(2)
    try:
        pending = pool.submit(touch_and_hang, started)
        assert wait_until(started.exists, PATIENCE_WITH_TORCH_S)
        sidecar = pool.process
        assert sidecar.poll() is None
        sidecar.kill()
        with pytest.raises(SubprocException) as caught:
            result(pending)
        assert isinstance(caught.value.error, SupervisorDied)
        assert sidecar.wait(PATIENCE_S) == sidecar.returncode == -signal.SIGKILL
        assert result(pool.submit(operator.add, 100, 1)) == 101
        assert pool.process.pid != sidecar.pid
    finally:
        pool.shutdown()


def test_a_worker_that_ignores_sigterm_does_not_hold_up_the_shutdown(tmp_path: Path) -> None:
    started = tmp_path / "started"
    pool = SubprocPool(2)
    deaf = pool.submit(ignore_sigterm_and_hang)
    busy = pool.submit(touch_and_hang, started)
    assert wait_until(started.exists, PATIENCE_WITH_TORCH_S)
    family = [pool.process.pid, *descendants(pool.process.pid)]
    pool.shutdown()
    assert not any(is_alive(pid) for pid in family)
    assert pool.process.pid == family[0]
    assert pool.process.wait(PATIENCE_S) == 0
    for future in (deaf, busy):
        with pytest.raises(RuntimeError):
            future.result(0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(operator.add, 100, 1)
    pool.shutdown()


def test_spawned_workers() -> None:
    pool = SubprocPool(2, kind=SubprocKind.SPAWN)
    added = pool.submit(operator.add, 100, 1)
    assert result(added) == 101
    assert result(pool.submit(who_am_i)) == (False, False, False, "0")
    pool.shutdown()


def test_workers_know_what_they_are(pool: SubprocPool) -> None:
    assert result(pool.submit(who_am_i)) == (False, False, False, "0")


class CountingPickler(SubprocPickler):  # type: ignore[misc] # torch is not typed
    def __init__(self) -> None:
        self.dumped = 0

    def dumps(self, obj: object) -> bytes:
        self.dumped += 1
        return pickle.dumps(obj)


def test_a_pickler_of_ones_own_is_used_on_both_sides() -> None:
    pickler = CountingPickler()
    pool = SubprocPool(1, pickler=pickler)
    assert result(pool.submit(operator.add, 100, 1)) == 101
    assert pickler.dumped == 1
    assert pool.pickler is pickler
    pool.shutdown()


def test_a_job_can_be_cancelled_while_it_runs(tmp_path: Path) -> None:
    started = tmp_path / "started"
    pool = SubprocPool(1)
    job = pool.submit(touch_and_hang, started)
    assert wait_until(started.exists, PATIENCE_WITH_TORCH_S)
    assert job.running()
    assert job.cancel()
    assert job.cancelled()
    with pytest.raises(CancelledError):
        job.result(0)
    assert result(pool.submit(operator.add, 100, 1)) == 101
    pool.shutdown()


def test_the_output_of_workers_goes_to_the_file_that_the_config_names(tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    log.write_text("of the last run\n")
    with config.patch(worker_suppress_logging=False, torchinductor_worker_logpath=str(log)):
        pool = SubprocPool(1)
        assert log.read_text() == ""
        result(pool.submit(say, "hello from a worker"))
        pool.shutdown()
    assert log.read_text().endswith("--- say\nhello from a worker\n")  # torch has warnings, too


@pytest.mark.parametrize("is_suppressed", [True, False])
def test_the_output_of_workers_is_suppressed_or_is_the_programs_own(
    is_suppressed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with config.patch(worker_suppress_logging=is_suppressed):
        pool = SubprocPool(1)
        result(pool.submit(say, "hello from a worker"))
        pool.shutdown()
    shown = "" if is_suppressed else "--- say\nhello from a worker\n"
    assert capsys.readouterr().err == shown


class Tracker:
    """In place of a wait counter of torch, which only a backend of Meta's can read."""

    active: ClassVar[dict[str, int]]
    begun: ClassVar[dict[str, int]]

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("pytorch.wait_counter.subproc_pool.")

    def guard(self) -> Tracker:
        return self

    def __enter__(self) -> None:
        self.active[self.name] = self.active.get(self.name, 0) + 1
        self.begun[self.name] = self.begun.get(self.name, 0) + 1

    def __exit__(self, *_error: object) -> None:
        self.active[self.name] -= 1


def test_wait_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from compilepool.integrations.torch import wait_counters

    monkeypatch.setattr(wait_counters, "_WaitCounter", Tracker)
    monkeypatch.setattr(Tracker, "active", {}, raising=False)
    monkeypatch.setattr(Tracker, "begun", {}, raising=False)
    gate = tmp_path / "gate"
    pool = SubprocPool(2)
    assert Tracker.active == {"running": 1}
    first = pool.submit(lambda: wait_until(gate.exists))
    second = pool.submit(operator.add, 100, 1)
    assert result(second) == 101
    assert Tracker.active == {"running": 1, "job": 1, "first_job": 1}
    gate.touch()
    assert result(first)
    assert Tracker.active == {"running": 1, "job": 0, "first_job": 0}
    pool.quiesce()
    pool.quiesce()
    assert Tracker.active == {"running": 1, "job": 0, "first_job": 0, "quiesced": 1}
    result(pool.submit(operator.add, 100, 1))
    assert Tracker.active == {"running": 1, "job": 0, "first_job": 0, "quiesced": 0}
    assert Tracker.begun == {"running": 1, "job": 3, "first_job": 2, "quiesced": 1}
    pool.shutdown()
    assert Tracker.active == {"running": 0, "job": 0, "first_job": 0, "quiesced": 0}


def test_variables_of_compilers_reach_jobs_as_they_are_at_each_submit(
    pool: SubprocPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["LD_LIBRARY_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"]
    for name in names:
        monkeypatch.setenv(name, f"/the/{name}")
        assert result(pool.submit(os.getenv, name)) == f"/the/{name}"
        monkeypatch.delenv(name)
        assert result(pool.submit(os.getenv, name)) is None


def test_a_failure_pickles() -> None:
    failure = KernelFailed("details", "softmax", WorkerCrashed("it crashed", job="softmax"))
    again = pickle.loads(pickle.dumps(failure))
    assert str(again) == str(failure)
    assert again.error.job == "softmax"


def test_every_name_of_the_references_module_is_there() -> None:
    from compilepool.integrations.torch.compile_worker import subproc_pool

    for name in vars(reference):
        assert hasattr(subproc_pool, name), name
    assert subproc_pool.SubprocPool is not reference.SubprocPool
    assert subproc_pool.SubprocException is reference.SubprocException
    with pytest.raises(AttributeError):
        subproc_pool.of_no_such_name  # noqa: B018


def test_the_sidecar_can_be_waited_for_in_vain() -> None:
    pool = SubprocPool(1)
    with pytest.raises(subprocess.TimeoutExpired):
        pool.process.wait(0)
    pool.shutdown()


def test_no_process_has_more_of_torch_than_the_reference_has(pool: SubprocPool) -> None:
    """A fork server that had opened a GPU, or started threads, would make its workers by exec."""
    assert result(pool.submit(os.getppid)) in descendants(pool.process.pid)
    assert not torch.cuda.is_initialized()
    assert compilepool.in_toplevel_process()
