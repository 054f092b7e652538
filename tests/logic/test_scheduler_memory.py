"""The scheduler, by examples: a job starts only where there is memory for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from compilepool.supervisor.rules.actions import (
    Action,
    ForgetRun,
    SendRun,
    StartWorker,
    TakeBack,
)
from tests.logic.schedulers import LATE, NOW, Settling


def with_expectations(max_workers: int, expected: dict[int, int]) -> Settling:
    """A scheduler that knows what jobs will take."""
    return Settling(max_workers, expected.__getitem__)


def test_a_job_waits_until_there_is_memory_for_it() -> None:
    scheduler = with_expectations(8, {1: 4, 2: 4, 3: 4})
    assert scheduler.memory_seen(9, {}, NOW) == []
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [StartWorker(1), SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=False) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.submit(3, NOW, may_go_ahead=False) == []
    assert scheduler.is_short_of_memory
    assert scheduler.memory_seen(11, {}, NOW) == []
    assert scheduler.memory_seen(12, {}, NOW) == [StartWorker(3), SendRun(3, 3)]
    assert not scheduler.is_short_of_memory


def test_what_a_job_has_taken_already_is_not_kept_for_it_again() -> None:
    scheduler = with_expectations(8, {1: 4, 2: 4})
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert scheduler.memory_seen(3, {}, NOW) == []
    assert scheduler.submit(2, NOW, may_go_ahead=False) == []
    # Of what there was, it has taken 3.
    assert scheduler.memory_seen(5, {1: 3}, NOW) == [StartWorker(2), SendRun(2, 2)]


def test_one_job_always_runs() -> None:
    scheduler = with_expectations(8, {1: 100, 2: 1})
    assert scheduler.memory_seen(-1, {}, NOW) == []
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [StartWorker(1), SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=False) == []
    scheduler.worker_ready(1, NOW)
    assert scheduler.run_finished(1, 1, LATE) == [SendRun(1, 2)]


def test_a_small_job_does_not_overtake_a_large_one_that_waits_for_memory() -> None:
    scheduler = with_expectations(8, {1: 4, 2: 100, 3: 1})
    scheduler.memory_seen(10, {}, NOW)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.submit(2, NOW, may_go_ahead=False)
    assert scheduler.submit(3, NOW, may_go_ahead=False) == []
    assert scheduler.cancel(2, NOW) == [ForgetRun(2), StartWorker(2), SendRun(2, 3)]


def test_what_takes_nothing_waits_for_nothing() -> None:
    scheduler = with_expectations(8, {1: 100, 2: 0})
    scheduler.memory_seen(-1, {}, NOW)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert scheduler.submit(2, NOW, may_go_ahead=False) == [StartWorker(2), SendRun(2, 2)]


def test_200_jobs_of_4_gib_on_a_machine_with_20_are_five_at_once() -> None:
    gib = 1 << 30
    scheduler = with_expectations(64, dict.fromkeys(range(200), 4 * gib))
    scheduler.memory_seen(20 * gib, {}, NOW)
    running: deque[tuple[int, int]] = deque()
    most = ended = 0

    def run(actions: Sequence[Action[str]]) -> None:
        for action in actions:
            if isinstance(action, StartWorker):
                run(scheduler.worker_ready(action.worker, NOW))
            elif isinstance(action, TakeBack):
                run(scheduler.taken_back(action.worker, [], NOW))
            elif isinstance(action, SendRun):
                running.append((action.worker, action.run))

    for job in range(200):
        run(scheduler.submit(job, NOW, may_go_ahead=False))
        most = max(most, len(running))
    while running:
        worker, job = running.popleft()
        run(scheduler.run_finished(worker, job, LATE))
        ended += 1
        most = max(most, len(running))
    assert (most, ended, scheduler.unfinished) == (5, 200, 0)
