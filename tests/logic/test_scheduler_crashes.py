"""The scheduler, by examples: a worker that crashes keeps its job until it is dead."""

from __future__ import annotations

from compilepool.supervisor.rules.actions import (
    FailRun,
    ForgetRun,
    KillWorker,
    ReportNoWorkers,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.staffing import MAX_START_FAILURES
from tests.logic.schedulers import (
    LATE,
    NOW,
    SOON,
    Settling,
    crash,
    with_a_crashing_worker,
    with_a_job_ahead,
    with_ready_workers,
)


def test_another_worker_has_the_place_of_a_crashing_one_until_that_is_lost() -> None:
    scheduler = with_a_crashing_worker()
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]
    scheduler.worker_ready(2, NOW)
    assert scheduler.run_finished(2, 2, NOW) == [SendRun(2, 3)]


def test_a_job_ahead_in_a_crashing_worker_runs_elsewhere_at_once() -> None:
    scheduler = with_a_job_ahead()
    assert crash(scheduler, 1, [2]) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.worker_of(2) == 2
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]


def test_a_job_ahead_in_a_crashing_worker_runs_before_those_that_came_after_it() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=True)
    assert crash(scheduler, 1, [2]) == [StartWorker(2), SendRun(2, 2)]


def test_an_idle_worker_that_crashes_gets_no_job() -> None:
    scheduler = with_ready_workers(2)
    assert crash(scheduler, 2, []) == []
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=False) == [StartWorker(3), SendRun(3, 2)]
    assert scheduler.worker_lost(2, [], "SIGSEGV", NOW) == []


def test_warm_up_fills_the_place_of_a_crashing_worker() -> None:
    scheduler = with_ready_workers(2)
    crash(scheduler, 1, [])
    assert scheduler.warm_up(NOW) == [StartWorker(3)]
    assert scheduler.warm_up(NOW) == []


def test_no_job_goes_ahead_to_a_crashing_worker() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, SOON)
    scheduler.submit(1, NOW, may_go_ahead=True)
    assert crash(scheduler, 1, []) == []
    assert scheduler.submit(2, NOW, may_go_ahead=True) == [StartWorker(2), SendRun(2, 2)]


def test_a_crashing_worker_may_still_end_its_job_but_gets_no_other() -> None:
    scheduler = with_a_crashing_worker()
    assert scheduler.run_finished(1, 1, NOW) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == []
    assert scheduler.unfinished == 2


def test_no_more_than_twice_as_many_workers_live_however_many_crash() -> None:
    scheduler = with_a_crashing_worker()
    scheduler.worker_ready(2, NOW)
    assert crash(scheduler, 2, []) == []
    assert scheduler.warm_up(NOW) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [
        FailRun(1, "SIGSEGV"),
        StartWorker(3),
        SendRun(3, 3),
    ]


def test_a_worker_that_crashes_while_starting_keeps_its_place_but_not_its_job() -> None:
    scheduler: Settling = Settling(2)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert crash(scheduler, 1, [1]) == [StartWorker(2), SendRun(2, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=False) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [StartWorker(3), SendRun(3, 2)]


def test_five_crashes_while_starting_in_a_row_fail_what_waits() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    for worker in range(1, MAX_START_FAILURES):
        assert crash(scheduler, worker, [1]) == []
        actions = scheduler.worker_lost(worker, [], "SIGSEGV", NOW)
        assert actions == [StartWorker(worker + 1), SendRun(worker + 1, 1)]
    crash(scheduler, MAX_START_FAILURES, [1])
    actions = scheduler.worker_lost(MAX_START_FAILURES, [], "SIGSEGV", NOW)
    assert actions == [FailRun(1, "SIGSEGV"), ReportNoWorkers("SIGSEGV")]


def test_a_worker_that_crashes_and_says_that_it_is_ready_is_no_start_failure() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    for worker in range(1, MAX_START_FAILURES + 1):
        assert crash(scheduler, worker, [1]) == []
        # Since it had started, another one has its place from now on.
        actions = scheduler.worker_ready(worker, NOW)
        assert actions == [StartWorker(worker + 1), SendRun(worker + 1, 1)]
        assert scheduler.worker_lost(worker, [], "SIGSEGV", NOW) == []


def test_a_job_begun_by_a_worker_that_crashes_before_it_is_heard_of_stays_with_it() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert crash(scheduler, 1, []) == []
    assert scheduler.worker_ready(1, NOW) == []
    assert scheduler.tick(LATE) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]


def test_cancelling_the_job_of_a_crashing_worker_kills_it_at_once_and_only_once() -> None:
    scheduler = with_a_crashing_worker()
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [], NOW) == [KillWorker(1)]
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [], NOW) == []
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ForgetRun(1)]


def test_a_worker_that_crashes_before_its_kill_comes_has_its_place_filled_once() -> None:
    scheduler = with_a_job_ahead()
    scheduler.cancel(1, NOW)
    replaced = [KillWorker(1), StartWorker(2), SendRun(2, 2)]
    assert scheduler.taken_back(1, [2], NOW) == replaced
    assert crash(scheduler, 1, []) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [ForgetRun(1)]


def test_a_killed_worker_that_crashes_after_its_last_job_gets_no_other() -> None:
    scheduler = with_a_job_ahead()
    scheduler.cancel(1, NOW)
    replaced = [KillWorker(1), StartWorker(2), SendRun(2, 2)]
    assert scheduler.taken_back(1, [2], NOW) == replaced
    assert scheduler.run_finished(1, 1, NOW) == []
    assert crash(scheduler, 1, []) == []


def test_the_fork_servers_death_frees_the_places_of_crashing_workers_too() -> None:
    scheduler = with_a_crashing_worker()
    scheduler.worker_ready(2, NOW)
    lost: dict[int, list[int]] = {1: [], 2: []}
    actions = scheduler.fork_server_lost(lost, "SIGKILL", "no worker", NOW)
    assert actions == [StartWorker(3), SendRun(3, 1)]
    scheduler.worker_ready(3, NOW)
    assert scheduler.run_finished(3, 1, LATE) == [SendRun(3, 2)]
    assert scheduler.run_finished(3, 2, LATE) == [SendRun(3, 3)]
    assert scheduler.submit(4, LATE, may_go_ahead=False) == []


def test_a_crash_in_a_broken_pool_fails_the_job_ahead_at_once() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.broken("no such module") == [ReportNoWorkers("no such module")]
    assert crash(scheduler, 1, [2]) == [FailRun(2, "no such module")]
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]


def test_a_pool_that_breaks_leaves_a_crashing_worker_its_job() -> None:
    scheduler = with_a_crashing_worker()
    assert scheduler.broken("no such module") == [
        ReportNoWorkers("no such module"),
        TakeBack(2),
        FailRun(3, "no such module"),
    ]
    assert scheduler.taken_back(2, [2], NOW) == [FailRun(2, "no such module")]
    assert scheduler.runs_of(1) == [1]
    assert scheduler.run_finished(1, 1, NOW) == []
    assert scheduler.unfinished == 0


def test_a_tick_does_not_concern_a_crashing_worker() -> None:
    scheduler = with_a_job_ahead()
    assert crash(scheduler, 1, [2]) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.wakes_at() is None
    assert scheduler.tick(LATE) == []
