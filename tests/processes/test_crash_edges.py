"""Crashes in odd places and at odd moments: they are told all the same, and hold nobody up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compilepool import CompilePool, WorkerCrashed, report_phase
from tests.proc import PATIENCE_S, pool_process, pool_processes, signal_inspector_of, wait_until


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with contextlib.suppress(KeyboardInterrupt), CompilePool(1) as pool:
        yield pool
        raise KeyboardInterrupt  # ends what a failed test leaves running


def crashed(pool: CompilePool, job: Callable[..., object], *args: object) -> WorkerCrashed:
    error = pool.options(name="softmax").submit(job, *args).exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    return error


def crash() -> None:
    ctypes.string_at(0)


def crash_when_told(gate: str) -> None:
    Path(gate).read_text()
    crash()


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.05])
def test_a_dump_at_the_moment_of_a_crash_costs_nothing_of_its_report(
    pool: CompilePool, tmp_path: Path, delay_s: float
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    future = pool.submit(crash_when_told, str(gate))
    assert wait_until(lambda: "crash_when_told" in pool.dump(future).python_traceback)
    asker = threading.Timer(delay_s, lambda: pool.dump(future))
    asker.start()
    gate.write_text("go")
    error = future.exception(PATIENCE_S)
    asker.join()
    assert isinstance(error, WorkerCrashed)
    assert error.signal is signal.SIGSEGV
    assert "in crash_when_told" in error.python_traceback
    assert "string_at" in error.native_traceback


def test_a_dump_of_many_threads_before_a_crash_costs_nothing_of_its_report(
    pool: CompilePool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def many_threads() -> None:
        never = threading.Event()

        def deep(levels: int) -> None:
            deep(levels - 1) if levels else never.wait()

        for _ in range(60):
            threading.Thread(target=deep, args=(40,), daemon=True).start()
        crash_when_told(str(gate))

    future = pool.submit(many_threads)
    assert wait_until(lambda: "crash_when_told" in pool.dump(future).python_traceback)
    gate.write_text("go")
    error = future.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert error.signal is signal.SIGSEGV
    first_thread = error.python_traceback.split("\n\n")[1]
    assert first_thread.startswith("Current thread")
    assert "in crash_when_told" in first_thread


def test_the_thread_that_crashed_is_shown_and_not_the_youngest(pool: CompilePool) -> None:
    def crash_beside_another() -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        crash()

    error = crashed(pool, crash_beside_another)
    assert "in crash_beside_another" in error.python_traceback.split("\n\n")[1]
    assert "in crash_beside_another" in str(error)
    assert "not Python's" not in str(error)


def test_threads_that_crash_at_once_are_reported(pool: CompilePool, zoo: str) -> None:
    def crash_twice() -> None:
        library = ctypes.CDLL(zoo)
        both = threading.Barrier(2)

        def crash_with_the_other() -> None:
            both.wait()
            library.null_dereference()

        threads = [threading.Thread(target=crash_with_the_other) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for _ in range(5):
        error = crashed(pool, crash_twice)
        assert error.signal is signal.SIGSEGV
        assert "#0 null_dereference" in str(error)


def test_a_fatal_error_of_python_itself_is_reported(pool: CompilePool) -> None:
    def misuse_python() -> None:
        ctypes.pythonapi.Py_FatalError(b"the GIL is not held")

    error = crashed(pool, misuse_python)
    assert error.signal is signal.SIGABRT
    assert "the GIL is not held" in error.python_traceback
    assert "in misuse_python" in error.python_traceback
    assert "Py_FatalError" in error.native_traceback


def test_words_of_a_crash_in_a_jobs_output_are_no_crash(pool: CompilePool) -> None:
    def talk() -> str:
        print("Fatal Python error: Segmentation fault", flush=True)
        signal.sigtimedwait([signal.SIGUSR2], 0.2)
        return "alive"

    assert pool.submit(talk).result(PATIENCE_S) == "alive"


def test_a_crash_of_a_process_that_c_code_forked_is_that_processs(pool: CompilePool) -> None:
    def fork_as_c_does() -> int:
        pid = int(ctypes.PyDLL(None).fork())
        if pid == 0:
            crash()
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert pool.submit(fork_as_c_does).result(PATIENCE_S) in (-signal.SIGSEGV, -signal.SIGKILL)


def test_a_job_that_closes_the_pools_descriptors_is_ended_even_if_it_never_ends(
    pool: CompilePool,
) -> None:
    def close_all_and_wait() -> None:
        os.closerange(3, 4096)
        while True:
            signal.pause()

    error = crashed(pool, close_all_and_wait)
    assert "has closed the pool's descriptors" in " ".join(str(error).split())
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_a_job_that_takes_the_signal_for_itself_is_told_what_that_costs(pool: CompilePool) -> None:
    def take_and_crash() -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        crash()

    error = crashed(pool, take_and_crash)
    assert error.signal is signal.SIGSEGV
    assert "has replaced the handler" in " ".join(str(error).split())


def test_an_inspector_that_ends_early_is_named_as_what_is_missing(pool: CompilePool) -> None:
    pool.submit(abs, 1).result(PATIENCE_S)
    supervisor = pool_process("supervisor")
    bad = pool.submit(crash)
    signal_inspector_of(supervisor, signal.SIGKILL)
    error = bad.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert error.signal is signal.SIGSEGV
    assert "the inspector itself ended" in " ".join(str(error).split())


def test_threads_start_where_memory_is_short(pool: CompilePool) -> None:
    def start_threads() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize()
        for extra in range(8 << 20, 12 << 20, 64 << 10):
            resource.setrlimit(resource.RLIMIT_AS, (size + extra, resource.RLIM_INFINITY))
            thread = threading.Thread(target=int)
            try:
                thread.start()
            except RuntimeError:
                continue
            thread.join()
            return extra
        return 0

    assert pool.submit(start_threads).result(PATIENCE_S) > 0


def test_a_stream_that_cannot_be_flushed_costs_no_result(pool: CompilePool) -> None:
    def replace_stdout() -> int:
        class Stream:
            def write(self, _text: str) -> None:
                """Nowhere."""

            def flush(self) -> None:
                raise SystemExit(120)

        sys.stdout = Stream()
        return 1

    assert pool.submit(replace_stdout).result(PATIENCE_S) == 1
    assert pool.submit(abs, -1).result(PATIENCE_S) == 1


def test_what_a_job_left_running_does_not_write_into_the_log_of_a_later_one(
    pool: CompilePool, tmp_path: Path
) -> None:
    go, gone = tmp_path / "go", tmp_path / "gone"
    os.mkfifo(go)

    def leave_behind() -> None:
        subprocess.Popen(["sh", "-c", f"read x <{go}; echo stray; echo stray >&2; touch {gone}"])

    pool.submit(leave_behind).result(PATIENCE_S)
    between = pool.submit(abs, -1)
    between.result(PATIENCE_S)
    go.write_text("go\n")
    assert wait_until(gone.exists)
    later = pool.submit(print, "mine")
    later.result(PATIENCE_S)
    assert (between.record.log, later.record.log) == ("", "mine\n")


def test_what_a_job_left_running_does_not_set_the_phase_of_a_later_one(
    pool: CompilePool, tmp_path: Path
) -> None:
    go, gone = tmp_path / "go", tmp_path / "gone"
    os.mkfifo(go)

    def leave_behind() -> None:
        if os.fork() == 0:
            go.read_text()
            report_phase("of the child")
            gone.touch()
            os._exit(0)

    def crash_after_it() -> None:
        go.write_text("go")
        while not gone.exists():
            signal.sigtimedwait([signal.SIGUSR2], 0.01)
        crash()

    pool.submit(leave_behind).result(PATIENCE_S)
    assert crashed(pool, crash_after_it).phase == ""


def test_a_job_that_runs_again_and_is_silent_has_no_output_of_its_first_run(
    pool: CompilePool, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"

    def die_once() -> None:
        if not marker.exists():
            marker.touch()
            print("first run", flush=True)
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

    future = pool.submit(die_once)
    future.result(PATIENCE_S)
    assert future.record.log == ""


FEW_DESCRIPTORS = """
import resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from compilepool import CompilePool
with CompilePool(8) as pool:
    futures = [pool.submit(time.sleep, 0.05) for _ in range(40)]
    print([repr(future.exception()) for future in futures if future.exception()])
"""


def test_with_few_descriptors_fewer_workers_do_all_jobs() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == "[]\n", run.stderr


def test_two_workers_that_are_killed_at_once_are_not_blamed_on_memory() -> None:
    with CompilePool(2) as pool:
        futures = [pool.submit(time.sleep, 1000) for _ in range(2)]
        assert wait_until(lambda: all(future.running() for future in futures))
        for worker in pool_processes("worker"):
            os.kill(worker, signal.SIGKILL)
        for future in futures:
            assert "probably for memory" not in str(future.exception(PATIENCE_S))
