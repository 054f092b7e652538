"""The output of jobs: whose it is, how much of it is kept, and that it blocks nobody."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool import CompilePool, RemoteTraceback, WorkerCrashed
from tests.proc import PATIENCE_S, pool_process, wait_until

KEPT = 64 * 1024


def say(text: str) -> str:
    print(text)
    return text


def test_what_a_job_prints_is_on_its_record_and_nowhere_else(
    pool: CompilePool, capfd: pytest.CaptureFixture[str]
) -> None:
    def speak() -> None:
        print("printed")
        print("printed to stderr", file=sys.stderr)
        os.write(1, b"written\n")
        ctypes.CDLL(None).printf(b"by C, without an end of line")
        subprocess.run(["sh", "-c", "echo by a child; echo and its stderr >&2"], check=True)

    future = pool.submit(speak)
    future.result(PATIENCE_S)
    assert set(future.record.log.replace("C, without an end of line", "C\n").splitlines()) == {
        "printed",
        "printed to stderr",
        "written",
        "by C",
        "by a child",
        "and its stderr",
    }
    silent = pool.submit(abs, -1)
    assert silent.result(PATIENCE_S) == 1
    assert silent.record.log == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_no_job_has_the_output_of_another(start_method: str) -> None:
    """Short jobs, so that the next one has begun before the supervisor hears of the last."""
    with CompilePool(2, start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        futures = [pool.submit(say, f"job {i}\n" + "x" * (i % 100)) for i in range(500)]
        for future in futures:
            assert future.result(PATIENCE_S) + "\n" == future.record.log


def test_nor_if_the_supervisor_is_late() -> None:
    with CompilePool(1) as pool:
        pool.submit(abs, -1).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        futures = [pool.submit(say, f"job {i}") for i in range(200)]
        while not all(future.done() for future in futures):
            os.kill(supervisor, signal.SIGSTOP)
            wait(futures, 0.15)  # longer than for a process that fills the pipe again and again
            os.kill(supervisor, signal.SIGCONT)
            wait(futures, 0.02)
        for future in futures:
            assert future.result() + "\n" == future.record.log


@given(st.lists(st.integers(0, 3 * KEPT), min_size=1, max_size=6))
@settings(max_examples=10)
def test_of_any_output_the_end_is_kept(sizes: list[int]) -> None:
    def write(size: int) -> str:
        text = "".join(chr(ord("a") + i % 26) for i in range(size))
        os.write(1, text.encode())
        return text

    with CompilePool(1) as pool:
        for future in [pool.submit(write, size) for size in sizes]:
            assert future.result(PATIENCE_S)[-KEPT:] == future.record.log


def peak_of(pid: int) -> int:
    """The most memory that a process had resident, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_a_job_that_prints_a_hundred_megabytes_costs_the_supervisor_nothing() -> None:
    def shout() -> None:
        line = b"x" * 999 + b"\n"
        for _ in range(100_000):
            os.write(1, line)
        os.write(1, b"the end\n")

    with CompilePool(1) as pool:
        pool.submit(say, "x" * KEPT).result(PATIENCE_S)
        supervisor = pool_process("supervisor")
        before = peak_of(supervisor)
        future = pool.submit(shout)
        future.result(PATIENCE_S)
        assert len(future.record.log) == KEPT
        assert future.record.log.endswith("x\nthe end\n")
        assert peak_of(supervisor) - before < 4 << 20


def test_what_a_job_said_before_it_raised_crashed_or_exited_is_on_its_error(
    pool: CompilePool,
) -> None:
    def fail() -> None:
        print("compiling")
        raise ValueError("no")

    error = pool.submit(fail).exception(PATIENCE_S)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert error.__cause__.log == "compiling\n"

    def die() -> None:
        print("LLVM ERROR: out of registers")
        os._exit(1)

    crash = pool.submit(die).exception(PATIENCE_S)
    assert isinstance(crash, WorkerCrashed)
    assert crash.log == "LLVM ERROR: out of registers\n"
    assert "  output   LLVM ERROR: out of registers" in str(crash)


def test_what_an_earlier_job_left_running_never_waits_for_room_to_write(
    pool: CompilePool, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    os.mkfifo(done)

    def leave_behind() -> int:
        script = f"head -c 1000000 /dev/zero; echo done > {done}"
        return subprocess.Popen(["sh", "-c", script]).pid

    assert pool.submit(leave_behind).result(PATIENCE_S)
    assert done.read_text() == "done\n"


def test_output_without_capture_goes_where_the_programs_goes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with CompilePool(1, capture=False) as pool:
        future = pool.submit(say, "hello")
        future.result(PATIENCE_S)
        assert future.record.log == ""
        assert capfd.readouterr().out == "hello\n"


def test_a_job_that_closes_its_output_harms_no_other() -> None:
    def close() -> None:
        os.close(1)
        os.close(2)

    with CompilePool(1) as pool:
        pool.submit(close).result(PATIENCE_S)
        future = pool.submit(say, "hello")
        future.result(PATIENCE_S)
        assert future.record.log == "hello\n"


def test_output_that_is_no_text_is_kept_as_far_as_it_is(pool: CompilePool) -> None:
    future = pool.submit(os.write, 1, b"a\xff\xfeb")
    future.result(PATIENCE_S)
    assert future.record.log == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"


def test_what_workers_say_at_their_end_is_not_captured(capfd: pytest.CaptureFixture[str]) -> None:
    def register() -> None:
        import atexit

        atexit.register(print, "goodbye", flush=True)

    with CompilePool(1) as pool:
        pool.submit(register).result(PATIENCE_S)
    assert capfd.readouterr().out == "goodbye\n"


def test_a_log_directory_gets_all_output_of_each_job(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    with CompilePool(2, log_dir=folder) as pool:
        long = pool.options(name="soft/max <f32>").submit(say, "x" * 3 * KEPT)
        short = [pool.options(name=f"short{i}").submit(say, f"hello {i}") for i in range(200)]
        silent = pool.options(name="silent").submit(abs, 1)
        crash = pool.options(name="crash").submit(os.abort)
        for future in (long, *short):
            future.result(PATIENCE_S)
        silent.result(PATIENCE_S)
        crash.exception(PATIENCE_S)
        supervisor = pool_process("supervisor")
        open_logs = [
            fd
            for fd in Path(f"/proc/{supervisor}/fd").iterdir()
            if os.readlink(fd).startswith(str(folder))
        ]
        assert not open_logs
    files = {path.name.rsplit("-", 2)[0]: path.read_text() for path in folder.iterdir()}
    assert files.pop("soft_max_f32_") == "x" * 3 * KEPT + "\n"
    assert files == {f"short{i}": f"hello {i}\n" for i in range(200)}
    assert long.record.log == "x" * (KEPT - 1) + "\n"


def test_a_log_directory_that_cannot_be_written_to_is_warned_of_once_and_costs_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with CompilePool(1, log_dir=tmp_path / "file") as pool:
        futures = [pool.submit(say, f"hello {i}") for i in range(3)]
        assert [future.result(PATIENCE_S) for future in futures] == [f"hello {i}" for i in range(3)]
        assert [future.record.log for future in futures] == [f"hello {i}\n" for i in range(3)]
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "log_dir" in warnings[0].getMessage()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"capture": 1}, TypeError, "capture must be True or False"),
        ({"log_dir": 3}, TypeError, "log_dir must be a path"),
        ({"log_dir": "x", "capture": False}, ValueError, "only if it is captured"),
        ({"native_tracebacks": "no"}, TypeError, "native_tracebacks must be True or False"),
        ({"keep_crashes": None}, TypeError, "keep_crashes must be True or False"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(
    options: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        CompilePool(1, **options)  # type: ignore[arg-type] # on purpose


def test_output_of_a_job_that_runs_again_is_that_of_its_last_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def die_once() -> None:
        with runs.open("a") as file:
            file.write("run\n")
        count = len(runs.read_text().splitlines())
        print(f"run {count}")
        if count == 1:
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()

    with CompilePool(1) as pool:
        future = pool.submit(die_once)
        future.result(PATIENCE_S)
        assert future.record.log == "run 2\n"


def test_a_stopped_supervisor_holds_up_output_only_until_it_goes_on(pool: CompilePool) -> None:
    def shout() -> None:
        for _ in range(100):
            os.write(1, b"x" * 10_000)

    pool.submit(abs, 1).result(PATIENCE_S)
    supervisor = pool_process("supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        future = pool.submit(shout)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    future.result(PATIENCE_S)
    assert len(future.record.log) == KEPT


def test_descriptors_are_given_back_when_workers_go() -> None:
    with CompilePool(1) as pool:
        pool.submit(abs, 1).result(PATIENCE_S)
        folder = Path(f"/proc/{pool_process('supervisor')}/fd")

        def count() -> int:
            with contextlib.suppress(OSError):
                return len(list(folder.iterdir()))
            return 0

        before = count()
        for _ in range(5):
            assert isinstance(pool.submit(os._exit, 1).exception(PATIENCE_S), WorkerCrashed)
            assert isinstance(pool.submit(os.abort).exception(PATIENCE_S), WorkerCrashed)
        pool.submit(abs, 1).result(PATIENCE_S)
        assert wait_until(lambda: count() == before)


def test_many_short_jobs_ahead_of_each_other_get_their_own_output(pool: CompilePool) -> None:
    def speak(number: int) -> None:
        if number % 3:
            print(f"{number:03}" * (number * 200))  # more than a pipe holds, mostly

    for _ in range(20):
        pool.submit(abs, -1).result(PATIENCE_S)
    jobs = [pool.submit(speak, number) for number in range(150)]
    for number, job in enumerate(jobs):
        job.result(PATIENCE_S)
        said = f"{number:03}" * (number * 200) + "\n" if number % 3 else ""
        assert job.record.log == said[-KEPT:]
