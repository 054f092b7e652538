"""A trace is whole however the program and its jobs end, and belongs to one process."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import pytest

from compilepool import CompilePool, report_phase
from tests.proc import PATIENCE_S, pool_processes, wait_until
from tests.programs.gates import Gate, wait_at
from tests.programs.running import Doomed, Program, family_of
from tests.traces import counters, files_of_at_most, open_count, read, read_meanwhile, slices


def test_a_trace_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("x" * 100_000)
    for name in ("first", "second"):
        with CompilePool(1, trace=str(path)) as pool:
            pool.options(name=name).submit(abs, 1).result(PATIENCE_S)
    assert [event["name"] for event in slices(read(path))] == ["second"]


def test_a_full_disk_ends_the_trace_and_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trace.json"
    with CompilePool(1, trace=path) as pool:
        assert pool.options(name="before").submit(abs, -1).result(PATIENCE_S) == 1
        with files_of_at_most(path.stat().st_size + 1000), caplog.at_level(logging.WARNING):
            results = [pool.submit(abs, -number).result(PATIENCE_S) for number in range(20)]
    assert results == list(range(20))
    (warning,) = caplog.messages
    assert warning.startswith("the trace ends here, because it cannot be written: ")
    assert slices(read(path))[0]["name"] == "before"


def test_a_trace_can_be_read_while_jobs_run(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"

    def work() -> None:
        report_phase("working")

    with CompilePool(2, trace=path) as pool:
        futures = [pool.submit(work) for _ in range(200)]
        while not all(future.done() for future in futures):
            done = sum(future.done() for future in futures)
            assert len(slices(read_meanwhile(path))) >= done
        assert len(slices(read_meanwhile(path))) == len(futures)


def test_a_trace_is_whole_when_the_program_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with Program("tracing.py", str(path)) as program:
        for number in range(30):
            assert program.read_line() == f"{number}"
        with Doomed(family_of(program.pid)) as family:
            program.kill()
            program.wait()
            assert family.wait()
        ended = program.rest().count("\n")
    names = [event["name"] for event in slices(read(path))]
    # One may have ended that the program could not tell of any more.
    assert len(names) - (30 + ended) in (0, 1)
    assert names == [f"job {number}" for number in range(len(names))]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("no such folder/trace.json", "No such file or directory"),
        (".", "Is a directory"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_a_trace_that_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, where: str, reason: str
) -> None:
    path = tmp_path / where
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=reason):
        CompilePool(1, trace=path)
    assert os.listdir("/proc/self/fd") == before
    assert not pool_processes("supervisor")


@pytest.mark.parametrize("is_used", [True, False])
def test_the_trace_is_closed_with_the_pool(tmp_path: Path, is_used: bool) -> None:
    path = tmp_path / "trace.json"
    with CompilePool(1, trace=path) as pool:
        if is_used:
            pool.submit(abs, 1).result(PATIENCE_S)
        assert open_count(path) == 1
    assert open_count(path) == 0
    with CompilePool(1, trace=path):
        pass
    pool = CompilePool(1, trace=path)
    del pool
    assert wait_until(lambda: open_count(path) == 0)


def test_a_forked_child_does_not_have_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with Gate(tmp_path / "gate") as gate, CompilePool(1, trace=path) as pool:
        future = pool.submit(wait_at, gate.path)
        assert wait_until(lambda: bool(counters(read_meanwhile(path), "jobs")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python >= 3.12: this process has threads
            pid = os.fork()
        if pid == 0:
            os._exit(open_count(path))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        gate.open()
        future.result(PATIENCE_S)
    assert len(slices(read(path))) == 1
