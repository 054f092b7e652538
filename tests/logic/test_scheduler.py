"""The scheduler, by examples: which worker gets which job, and when."""

from __future__ import annotations

import pytest

from compilepool.supervisor.rules.actions import ReportStarted, SendRun, StartWorker, TakeBack
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_RUN_S
from compilepool.supervisor.rules.scheduler import Scheduler
from tests.logic.schedulers import LATE, NOW, SOON, Settling, with_a_job_ahead, with_ready_workers


def test_a_worker_is_started_only_for_a_job_and_has_it_at_once() -> None:
    scheduler: Settling = Settling(2)
    assert scheduler.submit(1, NOW, may_go_ahead=True) == [StartWorker(1), SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=True) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.submit(3, NOW, may_go_ahead=True) == []


def test_an_idle_worker_is_used_before_a_new_one_is_started() -> None:
    scheduler = with_ready_workers(1, max_workers=2)
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=False) == [StartWorker(2), SendRun(2, 2)]


def test_the_worker_that_became_idle_last_gets_the_next_job() -> None:
    scheduler = with_ready_workers(3)
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [SendRun(3, 1)]


def test_warm_up_starts_all_workers_that_there_are_not_yet() -> None:
    scheduler = with_ready_workers(1, max_workers=3)
    assert scheduler.warm_up(NOW) == [StartWorker(2), StartWorker(3)]
    assert scheduler.warm_up(NOW) == []


def test_a_job_goes_ahead_to_a_busy_worker_while_jobs_are_short() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.runs_of(1) == [1, 2]
    for job in range(3, MAX_AHEAD + 2):
        assert scheduler.submit(job, NOW, may_go_ahead=True) == [SendRun(1, job)]
    last = MAX_AHEAD + 2
    assert scheduler.submit(last, NOW, may_go_ahead=True) == []  # so many are enough
    assert scheduler.run_finished(1, 1, SOON) == [SendRun(1, last)]


def test_the_longer_jobs_take_the_fewer_go_ahead() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, NOW + SHORT_RUN_S / 2.5)
    for job in (1, 2, 3):
        assert scheduler.submit(job, NOW, may_go_ahead=True) == [SendRun(1, job)]
    assert scheduler.submit(4, NOW, may_go_ahead=True) == []


def test_how_long_a_job_ran_is_known_even_if_its_end_is_heard_late_with_others() -> None:
    scheduler = with_a_job_ahead()
    scheduler.run_finished(1, 1, NOW + 1)
    scheduler.submit(3, NOW + 1, may_go_ahead=True)
    scheduler.run_finished(1, 2, NOW + 1, took_s=SHORT_RUN_S / 2)
    assert [scheduler.submit(job, NOW + 1, may_go_ahead=True) for job in (4, 5, 6)] == [
        *([SendRun(1, 4)], [SendRun(1, 5)], []),
    ]


def test_what_waits_ahead_elsewhere_is_taken_back_when_somebody_is_idle() -> None:
    scheduler = with_ready_workers(2)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(2, 0, SOON)
    for job in range(1, 7):
        scheduler.submit(job, NOW, may_go_ahead=True)  # to each of them in turn
    assert scheduler.run_finished(2, 1, SOON) == []
    assert scheduler.run_finished(2, 3, SOON) == []
    assert scheduler.run_finished(2, 5, SOON, took_s=SHORT_RUN_S / 2) == [TakeBack(1)]
    assert scheduler.taken_back(1, [4, 6], SOON) == [SendRun(2, 4), SendRun(1, 6)]


def test_while_others_start_nobody_has_more_than_one_job_ahead() -> None:
    scheduler = with_ready_workers(1, max_workers=2)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, SOON)
    sent = [scheduler.submit(job, NOW, may_go_ahead=True) for job in range(1, 6)]
    assert sent == [
        *([SendRun(1, 1)], [StartWorker(2), SendRun(2, 2)], [SendRun(1, 3)], [], []),
    ]
    assert scheduler.worker_ready(2, NOW) == [SendRun(2, 4), SendRun(1, 5)]


def test_jobs_go_ahead_to_all_busy_workers_alike() -> None:
    scheduler = with_ready_workers(2)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(2, 0, SOON)
    unsettled: Scheduler[str] = scheduler
    for job in range(1, 7):
        Scheduler.submit(unsettled, job, may_go_ahead=True)
    assert scheduler.next_actions(NOW) == [
        *(SendRun(2, 1), SendRun(1, 2)),
        *(SendRun(2, 3), SendRun(1, 4), SendRun(2, 5), SendRun(1, 6)),
    ]


def test_no_job_goes_ahead_after_a_long_one() -> None:
    scheduler = with_ready_workers(1)
    assert scheduler.submit(1, NOW, may_go_ahead=True) == [SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=True) == []


def test_a_large_job_does_not_go_ahead_nor_does_one_behind_it() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, SOON)
    scheduler.submit(1, NOW, may_go_ahead=True)
    assert scheduler.submit(2, NOW, may_go_ahead=False) == []
    assert scheduler.submit(3, NOW, may_go_ahead=True) == []


def test_a_job_ahead_is_taken_back_when_the_one_before_it_turns_out_to_be_long() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.wakes_at() == NOW + SHORT_RUN_S
    assert scheduler.tick(SOON) == []
    assert scheduler.tick(LATE) == [TakeBack(1)]
    assert scheduler.taken_back(1, [2], LATE) == [ReportStarted(1, is_read=True)]
    assert scheduler.wakes_at() is None
    assert scheduler.run_finished(1, 1, LATE + 1) == [SendRun(1, 2)]


def test_a_job_taken_back_runs_at_once_where_a_worker_is_idle() -> None:
    scheduler = with_ready_workers(2)
    for job in (11, 12):
        scheduler.submit(job, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 12, SOON)
    scheduler.submit(13, NOW, may_go_ahead=True)
    assert scheduler.submit(14, NOW, may_go_ahead=True) == [SendRun(2, 14)]
    assert scheduler.run_finished(1, 13, SOON) == []  # 14 may be short as well, and stays
    assert scheduler.tick(LATE) == [TakeBack(2)]
    assert scheduler.taken_back(2, [14], LATE) == [ReportStarted(11, is_read=True), SendRun(1, 14)]


def test_a_job_that_its_worker_had_not_even_begun_is_sent_again() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.tick(LATE) == [TakeBack(1)]
    assert scheduler.taken_back(1, [1, 2], LATE) == [SendRun(1, 1), SendRun(1, 2)]


def test_the_job_of_a_starting_worker_is_taken_back_for_an_idle_one() -> None:
    scheduler = with_ready_workers(1, max_workers=2)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.submit(2, NOW, may_go_ahead=False)
    assert scheduler.run_finished(1, 1, LATE) == [TakeBack(2)]
    assert scheduler.taken_back(2, [2], LATE) == [SendRun(1, 2)]
    assert scheduler.worker_ready(2, LATE) == []


def test_a_job_that_a_starting_worker_has_begun_stays_with_it() -> None:
    scheduler = with_ready_workers(1, max_workers=2)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.submit(2, NOW, may_go_ahead=False)
    assert scheduler.run_finished(1, 1, LATE) == [TakeBack(2)]
    assert scheduler.taken_back(2, [], LATE) == []
    assert scheduler.worker_ready(2, LATE) == []
    assert scheduler.run_finished(2, 2, LATE) == []
    assert scheduler.unfinished == 0


def test_those_with_a_higher_priority_go_first_and_among_them_who_came_first() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    for job, priority in ((2, 0), (3, -1), (4, 5), (5, 5), (6, 0)):
        assert scheduler.submit(job, NOW, may_go_ahead=False, priority=priority) == []
    order = []
    job = 1
    while actions := scheduler.run_finished(1, job, LATE):
        (action,) = actions
        assert isinstance(action, SendRun)
        job = action.run
        order.append(job)
    assert order == [4, 5, 2, 6, 3]


def test_a_job_has_a_worker_from_when_it_is_sent_until_it_is_taken_back() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    assert [scheduler.worker_of(job) for job in (1, 2, 3)] == [1, 1, None]
    scheduler.tick(LATE)
    scheduler.taken_back(1, [2], LATE)
    assert [scheduler.worker_of(job) for job in (1, 2, 3)] == [1, None, None]


@pytest.mark.parametrize("job", [2, 99])
def test_a_worker_cannot_end_a_job_that_it_does_not_run(job: int) -> None:
    scheduler = with_a_job_ahead()
    with pytest.raises(ValueError, match="does not run"):
        scheduler.run_finished(1, job, NOW)
    assert scheduler.unfinished == 2


def test_a_starting_worker_cannot_end_a_job() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    with pytest.raises(ValueError, match="does not run"):
        scheduler.run_finished(1, 1, NOW)
