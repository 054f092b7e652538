"""Traces: what a viewer needs is in them, and they are whole however the program ends."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool import CompileFuture, CompilePool, JobTimeout, WorkerCrashed, report_phase
from compilepool.observe.trace import TraceFile
from tests.processes import PATIENCE_S, pool_processes, wait_until
from tests.programs.gates import Gate, wait_at
from tests.programs.running import Doomed, Program, family_of

Event: TypeAlias = dict[str, Any]
Traced: TypeAlias = tuple[list[Event], dict[str, CompileFuture[Any]]]

SHORT_JOBS = 60


def read(path: Path) -> list[Event]:
    """All events, as a single system call finds them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.read(fd, 1 << 24)
    finally:
        os.close(fd)
    events = json.loads(data)
    assert isinstance(events, list)
    return events


def read_meanwhile(path: Path) -> list[Event]:
    """Read what somebody writes just now: the kernel lets us see half of a write, for a moment."""
    events: list[Event] = []

    def is_whole() -> bool:
        try:
            events[:] = read(path)
        except ValueError:
            return False
        return True

    assert wait_until(is_whole)
    return events


def slices(events: list[Event], category: str = "job") -> list[Event]:
    return [event for event in events if event["ph"] == "X" and event["cat"] == category]


def counters(events: list[Event], name: str) -> list[dict[str, float]]:
    found = [event for event in events if event["ph"] == "C" and event["name"].startswith(name)]
    return [event["args"] for event in found]


def job_of(events: list[Event], name: str) -> Event:
    (found,) = [event for event in slices(events) if event["name"] == name]
    return found


def open_count(path: Path) -> int:
    """How often this process has a file open."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}") == str(path)
        except OSError:
            continue  # the listing's own
    return count


# What is in a trace


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


def test_a_trace_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("x" * 100_000)
    for name in ("first", "second"):
        with CompilePool(1, trace=str(path)) as pool:
            pool.options(name=name).submit(abs, 1).result(PATIENCE_S)
    assert [event["name"] for event in slices(read(path))] == ["second"]


def test_names_are_kept_whatever_is_in_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    name = 'a "job"\\ with\n\x1b[31m\0 and \N{GRINNING FACE}'

    def work() -> None:
        report_phase(name)

    with CompilePool(1, trace=path) as pool:
        pool.options(name=name).submit(work).result(PATIENCE_S)
    (job, phase) = (event for event in read(path) if event["ph"] == "X")
    assert job["name"] == phase["name"] == name


# A trace is whole


JSON = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
EVENTS = st.dictionaries(st.text(), JSON | st.dictionaries(st.text(), JSON), max_size=4)


@given(st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=8))
@settings(max_examples=30)
def test_a_trace_has_all_events_after_every_write(
    tmp_path: Path, writes: list[list[Event]]
) -> None:
    path = tmp_path / "trace.json"
    file = TraceFile(str(path))
    try:
        expected: list[Event] = []
        assert read(path) == expected
        for events in writes:
            file.write(events)
            expected += events
            assert read(path) == expected
    finally:
        file.close()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond that does as much as it can, and the next one nothing, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_until_full(file: TraceFile, event: Event) -> int:
    """Write the same event again and again. Returns how often that went well."""
    count = 0
    try:
        while True:
            file.write([event])
            count += 1
    except OSError:
        return count


@given(st.integers(10, 200), st.integers(1, 80))
@settings(max_examples=50)
def test_a_trace_is_whole_when_the_disk_is_full(tmp_path: Path, room: int, length: int) -> None:
    path = tmp_path / "trace.json"
    event = {"name": "x" * length}
    file = TraceFile(str(path))
    with files_of_at_most(room):
        count = write_until_full(file, event)
    file.close()
    assert read(path) == [event] * count


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


# Phases in records


@pytest.fixture
def pool() -> Iterator[CompilePool]:
    with CompilePool(1) as pool:
        yield pool


def test_a_record_has_the_phases_in_order_and_they_leave_no_gap(pool: CompilePool) -> None:
    names = ["parse", "codegen", "ptxas", "parse"]

    def work() -> None:
        for name in names:
            report_phase(name)
            wait_until(lambda: False, 0.01)

    future = pool.submit(work)
    future.result(PATIENCE_S)
    record = future.record
    assert record.started is not None
    assert record.ended is not None
    assert [phase.name for phase in record.phases] == names
    assert all(phase.seconds >= 0.01 for phase in record.phases)
    slack = 1e-5  # of floating point: these are seconds since 1970
    assert record.phases[0].started >= record.started - slack
    for phase, following in pairwise(record.phases):
        assert phase.started + phase.seconds == pytest.approx(following.started, abs=slack)
    last = record.phases[-1]
    assert last.started + last.seconds == pytest.approx(record.ended, abs=slack)
    before_s = record.phases[0].started - record.started
    total_s = sum(phase.seconds for phase in record.phases)
    assert total_s + before_s == pytest.approx(record.wall_seconds, abs=slack)


def test_a_job_has_no_phases_of_the_one_before(pool: CompilePool) -> None:
    def work(*names: str) -> None:
        for name in names:
            report_phase(name)

    futures = [pool.submit(work, "a", "b"), pool.submit(work), pool.submit(work, "c")]
    for future in futures:
        future.result(PATIENCE_S)
    assert [[phase.name for phase in future.record.phases] for future in futures] == [
        ["a", "b"],
        [],
        ["c"],
    ]


def test_a_job_that_raises_has_its_phases(pool: CompilePool) -> None:
    def work() -> None:
        report_phase("a")
        report_phase("b")
        raise LookupError("c")

    future = pool.submit(work)
    assert isinstance(future.exception(PATIENCE_S), LookupError)
    assert [phase.name for phase in future.record.phases] == ["a", "b"]


@pytest.mark.parametrize("letter", ["x", "\N{CJK UNIFIED IDEOGRAPH-4E00}", "\N{GRINNING FACE}"])
def test_a_record_has_64_phases_at_most_however_long_their_names(
    pool: CompilePool, letter: str
) -> None:
    def work() -> int:
        for number in range(1000):
            report_phase(f"{number} {letter * 200}")
        return 5

    future = pool.submit(work)
    assert future.result(PATIENCE_S) == 5
    phases = future.record.phases
    assert 1 <= len(phases) <= 64
    for number, phase in enumerate(phases):
        assert phase.name.startswith(f"{number} {letter}")
        assert len(phase.name) <= 100


def test_a_large_result_comes_with_long_phases(pool: CompilePool) -> None:
    def work(size: int) -> bytes:
        for _ in range(64):
            report_phase("\N{CJK UNIFIED IDEOGRAPH-4E00}" * 100)
        return b"x" * size

    for size in (60_000, 65_000, 66_000, 1_000_000):
        assert len(pool.submit(work, size).result(PATIENCE_S)) == size


@pytest.mark.parametrize(
    ("end", "kind"), [(lambda: ctypes.string_at(0), WorkerCrashed), (signal.pause, JobTimeout)]
)
def test_a_job_that_is_killed_has_its_last_phase(
    pool: CompilePool, end: Callable[[], object], kind: type[Exception]
) -> None:
    def work() -> None:
        report_phase("parse")
        report_phase("ptxas")
        end()

    future = pool.options(timeout=0.2).submit(work)
    assert isinstance(future.exception(PATIENCE_S), kind)
    (phase,) = future.record.phases
    assert phase.name == "ptxas"
    record = future.record
    assert record.started is not None
    assert record.ended is not None
    assert record.started <= phase.started <= record.ended
    assert phase.seconds == pytest.approx(record.ended - phase.started, abs=1e-5)


def test_a_phase_must_be_a_str(pool: CompilePool) -> None:
    with pytest.raises(TypeError, match="report_phase needs a str, not 3"):
        report_phase(3)  # type: ignore[arg-type]


def test_phases_outside_of_jobs_do_nothing() -> None:
    report_phase("nowhere")
