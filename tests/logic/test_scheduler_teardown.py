"""Workers that tear down for long what a run has left, and what becomes of their next runs."""

from __future__ import annotations

import pytest

from compilepool.supervisor.rules.actions import (
    EndWorker,
    ForgetRun,
    ReplaceForkServer,
    ReportStarted,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.dispatch import SHORT_RUN_S
from compilepool.supervisor.rules.staffing import MAX_TEARDOWN_S
from tests.logic.schedulers import LATE, SOON, Settling, with_a_job_ahead, with_ready_workers

LATER = LATE + 2 * SHORT_RUN_S
AT_LAST = LATER + MAX_TEARDOWN_S


def tearing_down(workers: int = 1) -> Settling:
    """Worker 1 tears down, so that run 1, which it was sent, waits again."""
    scheduler = with_ready_workers(workers, workers)
    assert scheduler.submit(1, LATE, may_go_ahead=False) == [SendRun(workers, 1)]
    assert scheduler.tick(LATER) == [ReportStarted(1)]
    assert scheduler.not_begun(workers, LATER) == [TakeBack(workers)]
    return scheduler


def test_a_run_that_has_not_begun_goes_to_an_idle_worker() -> None:
    scheduler = tearing_down(workers=2)
    assert scheduler.taken_back(2, [1], LATER, is_tearing_down=True) == [SendRun(1, 1)]


def test_or_it_waits_until_the_worker_has_torn_down() -> None:
    scheduler = tearing_down()
    assert scheduler.taken_back(1, [1], LATER, is_tearing_down=True) == []
    assert scheduler.activity_of(1) == "idle"
    assert scheduler.torn_down(1, LATER) == [SendRun(1, 1)]
    assert scheduler.tick(AT_LAST) == [ReportStarted(1)]


def test_but_not_for_ever() -> None:
    scheduler = tearing_down()
    scheduler.taken_back(1, [1], LATER, is_tearing_down=True)
    assert scheduler.wakes_at() == AT_LAST
    assert scheduler.tick(AT_LAST) == [EndWorker(1), StartWorker(2), SendRun(2, 1)]
    assert scheduler.torn_down(1, AT_LAST) == []  # it says so at last, and goes


def test_a_run_that_was_begun_just_then_stays_where_it_is() -> None:
    scheduler = tearing_down()
    assert scheduler.taken_back(1, [], LATER, is_tearing_down=True) == [
        ReportStarted(1, is_read=True)
    ]
    assert scheduler.runs_of(1) == [1]
    assert scheduler.torn_down(1, LATER) == []


def test_a_run_that_is_late_for_another_reason_is_sent_again() -> None:
    """The worker may be about to say that it tears down, or to read the run."""
    scheduler = tearing_down()
    assert scheduler.taken_back(1, [1], LATER, is_tearing_down=False) == [SendRun(1, 1)]
    assert scheduler.tick(AT_LAST) == [ReportStarted(1)]


def test_runs_that_were_sent_ahead_wait_again_too() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.tick(LATE) == [TakeBack(1)]
    assert scheduler.taken_back(1, [1, 2], LATE, is_tearing_down=True) == []
    assert scheduler.torn_down(1, LATE) == [SendRun(1, 1), SendRun(1, 2)]


def test_a_worker_that_tears_down_unnoticed_is_like_any_other() -> None:
    scheduler = with_ready_workers(1)
    assert scheduler.torn_down(1, SOON) == []
    assert scheduler.submit(1, LATE, may_go_ahead=False) == [SendRun(1, 1)]


@pytest.mark.parametrize("is_innocent", [True, False])
def test_its_death_concerns_no_run(is_innocent: bool) -> None:
    scheduler = tearing_down()
    scheduler.taken_back(1, [1], LATER, is_tearing_down=True)
    assert scheduler.worker_lost(1, [], "crash", LATER, is_innocent=is_innocent) == [
        StartWorker(2),
        SendRun(2, 1),
    ]


def test_a_crash_gives_its_place_to_another_at_once() -> None:
    scheduler = tearing_down()
    scheduler.taken_back(1, [1], LATER, is_tearing_down=True)
    assert scheduler.worker_crashing(1, LATER) == [StartWorker(2), SendRun(2, 1)]


def test_a_pool_that_goes_to_sleep_ends_it() -> None:
    scheduler = tearing_down()
    scheduler.taken_back(1, [1], LATER, is_tearing_down=True)
    assert scheduler.cancel(1, LATER) == [ForgetRun(1)]
    assert scheduler.quiesce(LATER, keeps_fork_server=True) == [EndWorker(1)]


def test_a_reload_replaces_it() -> None:
    scheduler = tearing_down()
    scheduler.taken_back(1, [1], LATER, is_tearing_down=True)
    wanted = {EndWorker(1), StartWorker(2), SendRun(2, 1), ReplaceForkServer()}
    assert set(scheduler.reload(LATER)) == wanted
