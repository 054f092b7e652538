"""What a job's error tells when its worker has crashed."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compilepool import CompilePool, PreloadFailed, WorkerCrashed, report_phase
from compilepool.cli.demo.faults import abort_in_llvm
from tests.cgroups import run_with_memory
from tests.proc import (
    PATIENCE_S,
    is_alive,
    pool_process,
    pool_processes,
    signal_inspector_of,
    wait_until,
)
from tests.zoo import CRASHES, Crash, Where, call
from tests.zoo.victims import NO_PTRACE, ROOT

SCREEN_LINES = 24
SCREEN_COLUMNS = 120


def crashed(pool: CompilePool, job: object, *args: object) -> WorkerCrashed:
    error = pool.options(name="softmax").submit(job, *args).exception(PATIENCE_S)  # type: ignore[arg-type] # a callable
    assert isinstance(error, WorkerCrashed)
    return error


def sentence(error: WorkerCrashed) -> str:
    """What stands before the parts of the report."""
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines if not re.match(r"  (\S| {8})", line))


def top_frames(error: WorkerCrashed, count: int) -> list[str]:
    """The first frames of the thread that crashed."""
    head, *frames = error.native_traceback.splitlines()
    assert "(crashed)" in head
    return [line for line in frames if line.startswith("  #")][:count]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.name)
def test_every_way_to_crash_is_told_with_the_function_that_crashed(
    pool: CompilePool, zoo: str, crash: Crash
) -> None:
    error = crashed(pool, call, zoo, crash.symbol, crash.where)
    assert error.signal is crash.signal
    assert error.exitcode is None
    assert any(f" {crash.function} " in frame for frame in top_frames(error, 3)), error
    assert error.python_traceback.startswith("Fatal Python error")
    assert " in call\n" in error.python_traceback
    assert sentence(error).startswith(
        f"the worker that ran job 'softmax' crashed with {crash.signal.name}"
    )
    assert crash.function in sentence(error)
    if crash.address is not None:
        assert f"address {crash.address:#x}," in sentence(error)
    assert len(str(error).splitlines()) <= SCREEN_LINES
    for line in str(error).splitlines():
        assert len(line) <= SCREEN_COLUMNS or line.startswith("  replay ")
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


@pytest.mark.parametrize("where", [Where.PTHREAD, Where.PTHREAD_WITH_GIL], ids=str)
def test_a_thread_that_is_not_pythons_is_told_apart(
    pool: CompilePool, zoo: str, where: Where
) -> None:
    error = crashed(pool, call, zoo, "null_dereference", where)
    assert "the thread that crashed is not Python's" in str(error)
    assert "in_pthread" in error.native_traceback.split("\n\n", 1)[1]  # where its maker waits


def test_an_abort_of_llvm_in_triton_has_llvms_frames_and_words() -> None:
    with CompilePool(1, preload=["triton"]) as pool:
        error = crashed(pool, abort_in_llvm)
    assert error.signal is signal.SIGABRT
    assert "llvm::report_fatal_error" in sentence(error)
    assert any("llvm::SelectionDAGISel" in frame for frame in top_frames(error, 5))
    assert "LLVM ERROR: Cannot select: intrinsic" in error.log
    assert "LLVM ERROR: Cannot select: intrinsic" in str(error)


def test_a_stack_of_a_hundred_thousand_frames_is_cut(pool: CompilePool, zoo: str) -> None:
    error = crashed(pool, call, zoo, "overflow_stack")
    first_thread = error.native_traceback.split("\n\n")[0].splitlines()
    assert len(first_thread) == 1 + 64 + 1
    assert first_thread[-1].endswith("cut at 64 frames")


def test_the_error_pickles_with_all_that_it_tells(pool: CompilePool, zoo: str) -> None:
    error = crashed(pool, call, zoo, "null_dereference")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_the_phase_is_told() -> None:
    def compile_kernel() -> None:
        report_phase("parse")
        report_phase("ptxas")
        ctypes.string_at(0)

    with CompilePool(1) as pool:
        error = crashed(pool, compile_kernel)
        assert error.phase == "ptxas"
        assert "ptxas, for " in str(error)
        after = crashed(pool, os._exit, 3)
        assert after.phase == ""


def test_a_phase_outside_of_a_job_is_nothing_and_must_be_text() -> None:
    report_phase("ptxas")
    with pytest.raises(TypeError, match="report_phase needs a str"):
        report_phase(3)  # type: ignore[arg-type] # on purpose


def test_without_native_tracebacks_a_crash_ends_the_worker_by_its_own_signal(
    tmp_path: Path,
) -> None:
    def crash() -> None:
        print("about to crash")
        ctypes.string_at(0)

    with CompilePool(1, native_tracebacks=False) as pool:
        error = crashed(pool, crash)
    assert error.signal is signal.SIGSEGV
    assert error.native_traceback == ""
    assert "in crash" in error.python_traceback
    assert error.log == "about to crash\n"
    assert "native" not in str(error)


def test_a_kill_from_outside_says_so(pool: CompilePool) -> None:
    error = crashed(pool, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert error.signal is signal.SIGKILL
    assert "was killed by SIGKILL (Killed)" in str(error)
    assert "MiB at its peak" in str(error)
    assert "probably for memory" not in str(error)


def test_a_kill_by_the_kernel_for_memory_is_told_apart() -> None:
    said = run_with_memory(256 << 20, "out_of_memory.py")
    assert "'greedy' was killed by SIGKILL (Killed), probably for memory" in said
    assert re.search(r"had \d\d+ MiB at its peak", said)


def test_a_job_that_enables_faulthandler_for_itself_is_still_reported(pool: CompilePool) -> None:
    def crash() -> None:
        import faulthandler

        faulthandler.disable()
        faulthandler.enable()
        ctypes.string_at(0)

    error = crashed(pool, crash)
    assert "in crash" in error.python_traceback
    assert "string_at" in error.native_traceback


def crash_in_child() -> int:
    process = multiprocessing.get_context("fork").Process(target=ctypes.string_at, args=(0,))
    process.start()
    process.join()
    return process.exitcode or 0


def test_a_crash_of_a_process_that_a_job_forked_is_that_processs(pool: CompilePool) -> None:
    future = pool.submit(crash_in_child)
    assert future.result(PATIENCE_S) == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in future.record.log


def test_a_crash_in_the_initializer_fails_the_jobs_in_the_end(zoo: str) -> None:
    with CompilePool(1, initializer=ctypes.string_at, initargs=(0,)) as pool:
        error = crashed(pool, abs, 1)
        assert "five times in a row" in str(error)
        assert error.signal is signal.SIGSEGV
        assert "string_at" in error.native_traceback


def test_a_crash_while_preloading_in_an_execd_worker_names_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashes_on_import.py").write_text("import ctypes; ctypes.string_at(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with CompilePool(1, start_method="spawn", preload=["crashes_on_import"]) as pool:
        error = pool.submit(abs, 1).exception(PATIENCE_S)
        assert isinstance(error, PreloadFailed)
        assert error.module == "crashes_on_import"
        assert "SIGSEGV" in str(error)


def test_while_a_worker_is_looked_into_others_take_its_jobs() -> None:
    """The inspector is stopped: the look takes as long as it may, and delays nobody."""
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        bad = pool.submit(ctypes.string_at, 0)
        signal_inspector_of(supervisor, signal.SIGSTOP)
        good = [pool.submit(abs, -i) for i in range(10)]
        assert [future.result(PATIENCE_S) for future in good] == list(range(10))
        assert not bad.done()
        error = bad.exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert error.signal is signal.SIGSEGV
        assert "in string_at" in error.python_traceback
        assert "took longer than 2 s" in str(error)


def test_many_crashes_at_once_are_all_reported() -> None:
    with CompilePool(8) as pool:
        futures = [pool.submit(ctypes.string_at, 0) for _ in range(24)]
        for future in futures:
            error = future.exception(PATIENCE_S)
            assert isinstance(error, WorkerCrashed)
            assert error.signal is signal.SIGSEGV
            assert "string_at" in error.python_traceback
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_an_inspector_that_is_killed_costs_the_native_stacks_only() -> None:
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        bad = pool.submit(ctypes.string_at, 0)
        signal_inspector_of(supervisor, signal.SIGKILL)
        error = bad.exception(PATIENCE_S)
        assert isinstance(error, WorkerCrashed)
        assert (error.signal, "string_at" in error.python_traceback) == (signal.SIGSEGV, True)
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_job_that_is_cancelled_while_it_is_looked_into_is_cancelled() -> None:
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        bad = pool.submit(ctypes.string_at, 0)
        signal_inspector_of(supervisor, signal.SIGSTOP)
        assert bad.cancel()
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        assert wait_until(lambda: not pool_processes("inspector"))


REFUSED = """
import ctypes, sys
from compilepool import CompilePool, WorkerCrashed
from tests.zoo import Where, call

def crash():
    print("about to crash", flush=True)
    call(sys.argv[1], "null_dereference", Where.PTHREAD)

with CompilePool(1) as pool:
    assert pool.submit(abs, -1).result() == 1
    error = pool.options(name="softmax").submit(crash).exception()
    assert isinstance(error, WorkerCrashed), error
    print(error)
    print(error.native_traceback)
    running = pool.submit(__import__("time").sleep, 1000)
    while not running.running():
        pass
    print(pool.dump(running))
    running.cancel()
"""


def test_where_ptrace_is_refused_the_report_says_what_is_missing(zoo: str) -> None:
    command = [*NO_PTRACE, sys.executable, "-c", REFUSED, zoo]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    crash, _, dump = run.stdout.partition("job 'sleep' runs")
    assert "SIGSEGV" in crash
    assert "#0 null_dereference" in crash  # read from memory alone
    assert "about to crash" in crash
    assert "in call" in crash
    assert "native stacks of the other threads: ptrace was refused" in crash
    assert "run_job" in dump
    assert "ptrace was refused" in dump


def test_a_crash_leaves_no_core_file_and_no_worker(
    pool: CompilePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def crash() -> int:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        ctypes.string_at(0)
        return 0

    crashed(pool, crash)
    assert not list(tmp_path.iterdir())
    assert all(is_alive(pid) for pid in pool_processes("worker"))
