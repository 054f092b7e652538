"""Traces: what a viewer needs is in them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from compilepool import CompileFuture, CompilePool, report_phase
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at
from tests.traces import Event, counters, job_of, read, read_meanwhile, slices

Traced: TypeAlias = tuple[list[Event], dict[str, CompileFuture[Any]]]
SHORT_JOBS = 60


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The trace of two long jobs, many short ones that wait for them, and one that crashes."""
    folder = tmp_path_factory.mktemp("traced")
    path = folder / "trace.json"
    futures: dict[str, CompileFuture[Any]] = {}

    def compile_in_phases(number: int) -> None:
        report_phase(f"parse {number}")
        report_phase(f"emit {number}")

    def is_queue_seen() -> bool:
        return any(
            counts["queued"] == SHORT_JOBS + 1 for counts in counters(read_meanwhile(path), "jobs")
        )

    def is_rest_seen() -> bool:
        return counters(read_meanwhile(path), "jobs")[-1] == {"queued": 0, "running": 0}

    with Gate(folder / "gate") as gate, CompilePool(2, trace=path, keep_crashes=False) as pool:
        for name in ("long 1", "long 2"):
            futures[name] = pool.options(name=name).submit(wait_at, gate.path)
        assert wait_until(lambda: all(future.running() for future in futures.values()))
        for number in range(SHORT_JOBS):
            name = f"short {number}"
            futures[name] = pool.options(name=name).submit(compile_in_phases, number)
        futures["crash"] = pool.options(name="crash").submit(ctypes.string_at, 0)
        assert wait_until(is_queue_seen)
        gate.open()
        for future in futures.values():
            future.exception(PATIENCE_S)
        assert wait_until(is_rest_seen)
    return read(path), futures


def test_every_event_has_what_its_kind_must_have(traced: Traced) -> None:
    events, _ = traced
    for event in events:
        assert isinstance(event["name"], str)
        assert event["pid"] == os.getpid()
        assert event["ph"] in {"M", "X", "i", "C"}
        if event["ph"] == "M":
            assert isinstance(event["args"]["name"], str)
            assert event["name"] == "process_name" or isinstance(event["tid"], int)
        else:
            assert isinstance(event["ts"], int)
            assert event["ts"] > 0
        if event["ph"] == "X":
            assert isinstance(event["tid"], int)
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
        elif event["ph"] == "i":
            assert isinstance(event["tid"], int)
            assert event["s"] == "t"
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int | float) for value in event["args"].values())


def test_each_worker_has_one_track_with_a_name(traced: Traced) -> None:
    events, futures = traced
    workers = {future.record.worker_pid for future in futures.values()}
    assert len(workers) >= 2
    names = [event for event in events if event["ph"] == "M" and event["name"] == "thread_name"]
    assert Counter(event["tid"] for event in names) == Counter(workers)
    assert len({event["args"]["name"] for event in names}) == len(workers)
    assert {event["tid"] for event in events if event["ph"] in "Xi"} == workers
    processes = [event for event in events if event["name"] == "process_name"]
    assert [event["args"]["name"] for event in processes] == ["compilepool"]


def test_each_job_is_a_slice_that_tells_what_its_record_tells(traced: Traced) -> None:
    events, futures = traced
    assert Counter(event["name"] for event in slices(events)) == Counter(futures.keys())
    for name, future in futures.items():
        event, record = job_of(events, name), future.record
        assert event["tid"] == record.worker_pid
        # In microseconds, rounded; the other is a difference of seconds since 1970.
        assert event["dur"] == pytest.approx(record.wall_seconds * 1e6, abs=3)
        assert event["args"]["queue_seconds"] == record.queue_seconds
        assert event["args"]["cpu_seconds"] == record.cpu_seconds
        assert event["args"]["peak_memory"] == record.peak_memory
    assert len({event["args"]["job"] for event in slices(events)}) == len(futures)


@pytest.mark.parametrize("category", ["job", "phase"])
def test_slices_of_one_kind_on_one_track_do_not_overlap(traced: Traced, category: str) -> None:
    events, _ = traced
    by_track: dict[int, list[tuple[int, int]]] = {}
    for event in slices(events, category):
        times = (event["ts"], event["ts"] + event["dur"])
        by_track.setdefault(event["tid"], []).append(times)
    assert sum(map(len, by_track.values())) >= SHORT_JOBS
    for times_of_track in by_track.values():
        for (_, end), (begin, _) in pairwise(sorted(times_of_track)):
            assert end <= begin


def test_phases_lie_within_their_jobs_one_after_the_other(traced: Traced) -> None:
    events, _ = traced
    for number in range(SHORT_JOBS):
        job = job_of(events, f"short {number}")
        parse, emit = (
            event
            for event in slices(events, "phase")
            if event["name"] in (f"parse {number}", f"emit {number}")
        )
        assert (parse["name"], emit["name"]) == (f"parse {number}", f"emit {number}")
        assert parse["tid"] == emit["tid"] == job["tid"]
        assert job["ts"] <= parse["ts"] <= emit["ts"]
        assert parse["ts"] + parse["dur"] == emit["ts"]
        assert emit["ts"] + emit["dur"] == job["ts"] + job["dur"]


def test_a_crash_is_an_instant_on_the_track_of_its_worker(traced: Traced) -> None:
    events, futures = traced
    job = job_of(events, "crash")
    (instant,) = [event for event in events if event["ph"] == "i"]
    assert instant["name"] == "WorkerCrashed"
    assert instant["tid"] == job["tid"] == futures["crash"].record.worker_pid
    assert instant["ts"] == job["ts"] + job["dur"]
    assert job["args"]["error"].startswith("WorkerCrashed: the worker that ran job 'crash'")
    assert "\n" not in job["args"]["error"]
    assert [event["name"] for event in slices(events) if "error" in event["args"]] == ["crash"]


def test_counters_tell_the_depth_of_the_queue_and_the_memory(traced: Traced) -> None:
    events, _ = traced
    assert {"queued": SHORT_JOBS + 1, "running": 2} in counters(events, "jobs")
    assert counters(events, "jobs")[-1] == {"queued": 0, "running": 0}
    memories = counters(events, "memory")
    for memory in memories:
        assert set(memory) == {"supervisor", "fork_server", "workers", "jobs"}
    for process in ("supervisor", "fork_server", "workers"):
        # The first look may have been before there was one.
        assert max(memory[process] for memory in memories) > 1  # MiB


@pytest.mark.parametrize(
    ("job", "text", "instants"),
    [
        (lambda: int("no such register"), "ValueError: invalid literal for int() ", []),
        (signal.pause, "JobTimeout: job 'the job' ", ["JobTimeout"]),
    ],
    ids=["raises", "takes too long"],
)
def test_only_what_the_pool_itself_says_of_a_failed_job_is_an_instant(
    tmp_path: Path, job: Callable[[], object], text: str, instants: list[str]
) -> None:
    path = tmp_path / "trace.json"
    with CompilePool(1, trace=path, timeout=0.2) as pool:
        future = pool.options(name="the job").submit(job)
        assert future.exception(PATIENCE_S) is not None
        events = read_meanwhile(path)  # whoever has a result finds it in the trace
    assert job_of(events, "the job")["args"]["error"].startswith(text)
    assert [event["name"] for event in events if event["ph"] == "i"] == instants


def test_a_job_that_was_run_again_is_one_slice_that_tells_how_often(tmp_path: Path) -> None:
    path, pid_file = tmp_path / "trace.json", tmp_path / "pid"
    with Gate(tmp_path / "gate") as gate, CompilePool(1, trace=path) as pool:
        waits = gate.path

        def note_and_wait() -> None:
            if not pid_file.exists():
                pid_file.with_suffix(".unfinished").write_text(f"{os.getpid()}")
                pid_file.with_suffix(".unfinished").rename(pid_file)
            wait_at(waits)

        future = pool.options(name="again", retries=1).submit(note_and_wait)
        assert wait_until(pid_file.exists)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        gate.open()
        future.result(PATIENCE_S)
    job = job_of(read(path), "again")
    assert job["args"]["attempts"] == 2
    assert job["tid"] == future.record.worker_pid


def test_a_job_that_never_ran_has_no_slice(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with Gate(tmp_path / "gate") as gate, CompilePool(1, trace=path) as pool:
        running = pool.options(name="runs").submit(wait_at, gate.path)
        assert wait_until(running.running)
        assert pool.options(name="never ran").submit(abs, 1).cancel()
        gate.open()
        running.result(PATIENCE_S)
    assert [event["name"] for event in slices(read(path))] == ["runs"]


def test_names_are_kept_whatever_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    name = 'a "job"\\ with\n\x1b[31m\0 and \N{GRINNING FACE}'

    def work() -> None:
        report_phase(name)

    with CompilePool(1, trace=path) as pool:
        pool.options(name=name).submit(work).result(PATIENCE_S)
    (job, phase) = (event for event in read(path) if event["ph"] == "X")
    assert job["name"] == phase["name"] == name
