"""The scheduler, by examples: jobs that are cancelled, or over their limits."""

from __future__ import annotations

import pytest

from compilepool.supervisor.rules.actions import (
    FailRun,
    ForgetRun,
    KillWorker,
    ReportStarted,
    SendRun,
    StartWorker,
    TakeBack,
)
from tests.logic.schedulers import (
    LATE,
    NOW,
    with_a_crashing_worker,
    with_a_job_ahead,
    with_ready_workers,
)


def test_cancelling_a_running_job_kills_its_worker_which_is_replaced_at_once() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    replaced = [KillWorker(1), StartWorker(2), SendRun(2, 2)]
    assert scheduler.taken_back(1, [2], NOW) == replaced
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]  # no second kill
    assert scheduler.taken_back(1, [], NOW) == []
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ForgetRun(1)]


def test_a_job_over_its_limit_ends_alone_and_its_worker_is_replaced_at_once() -> None:
    scheduler = with_a_job_ahead()
    scheduler.tick(LATE)
    assert scheduler.taken_back(1, [2], LATE) == [ReportStarted(1, is_read=True)]
    assert scheduler.over_limit(1, 1) == [KillWorker(1), TakeBack(1)]
    assert scheduler.taken_back(1, [], LATE) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.over_limit(1, 1) == []
    assert scheduler.worker_lost(1, [], "timeout", LATE) == [FailRun(1, "timeout")]


def test_a_job_over_its_limit_that_ends_before_the_kill_has_its_result() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert scheduler.over_limit(1, 1) == [KillWorker(1), TakeBack(1)]
    assert scheduler.taken_back(1, [], LATE) == []
    assert scheduler.run_finished(1, 1, LATE) == []
    assert scheduler.worker_lost(1, [], "timeout", LATE) == []


@pytest.mark.parametrize("job", [2, 3, 99])
def test_only_the_job_that_runs_can_be_over_its_limit(job: int) -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=True)
    assert scheduler.over_limit(1, job) == []


def test_a_job_that_has_crashed_or_is_cancelled_is_not_over_its_limit_as_well() -> None:
    scheduler = with_a_crashing_worker()
    assert scheduler.over_limit(1, 1) == []
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.cancel(1, NOW)
    scheduler.taken_back(1, [], NOW)
    assert scheduler.over_limit(1, 1) == []


def test_a_job_over_its_limit_that_is_cancelled_meanwhile_ends_cancelled() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.over_limit(1, 1)
    scheduler.taken_back(1, [], NOW)
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [], NOW) == []
    assert scheduler.worker_lost(1, [], "timeout", NOW) == [ForgetRun(1)]


def test_a_cancelled_job_does_not_run_again() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=3)
    scheduler.cancel(1, NOW)
    actions = scheduler.worker_lost(1, [], "SIGKILL", NOW, is_innocent=True)
    assert actions == [ForgetRun(1)]


def test_cancelling_a_job_that_is_not_running_kills_nothing() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    assert scheduler.cancel(3, NOW) == [ForgetRun(3)]
    assert scheduler.cancel(2, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [2], NOW) == [ForgetRun(2)]
    assert scheduler.cancel(99, NOW) == []
    assert scheduler.runs_of(1) == [1]


def test_cancelling_a_job_that_has_just_ended_spares_the_next_one() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    # The worker reads its next job only after it has sent the result of the one before.
    assert scheduler.taken_back(1, [], NOW) == []
    assert scheduler.run_finished(1, 1, NOW) == []
    assert scheduler.runs_of(1) == [2]


def test_cancelling_a_job_that_has_just_begun_kills_its_worker() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.cancel(2, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [], NOW) == [KillWorker(1)]
    assert scheduler.run_finished(1, 1, NOW) == []  # its result was sent before
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ForgetRun(2)]


def test_a_cancelled_job_that_is_faster_than_the_kill_has_a_result_and_no_other_end() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.cancel(1, NOW)
    assert scheduler.taken_back(1, [], NOW) == [KillWorker(1)]
    assert scheduler.run_finished(1, 1, NOW) == []
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == []
    assert scheduler.unfinished == 0


def test_a_job_that_is_lost_twice_with_its_fork_server_fails_unless_cancelled() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.cancel(1, NOW)
    scheduler.taken_back(1, [], NOW)
    assert scheduler.fork_server_lost({1: []}, "SIGKILL", "no worker", NOW) == [ForgetRun(1)]


def test_cancel_queued_cancels_the_jobs_that_no_worker_has() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    scheduler.submit(4, NOW, may_go_ahead=False)
    assert scheduler.cancel_queued(NOW) == [ForgetRun(3), ForgetRun(4)]
    assert scheduler.runs_of(1) == [1, 2]
