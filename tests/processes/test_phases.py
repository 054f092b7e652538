"""The phases of a job in its record."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from compilepool import CompilePool, JobTimeout, WorkerCrashed, report_phase
from tests.proc import PATIENCE_S, wait_until


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

    pool.submit(lambda: None).result(PATIENCE_S)  # its worker has imported all that `work` needs
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
