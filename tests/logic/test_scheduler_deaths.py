"""The scheduler, by examples: workers and fork servers die, or cannot be started."""

from __future__ import annotations

from compilepool.supervisor.rules.actions import (
    FailRun,
    ReportNoWorkers,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.rules.staffing import MAX_START_FAILURES
from tests.logic.schedulers import LATE, NOW, Settling, with_a_job_ahead, with_ready_workers


def test_a_worker_that_dies_fails_the_job_it_ran_and_the_job_ahead_runs_elsewhere() -> None:
    scheduler = with_a_job_ahead()
    actions = scheduler.worker_lost(1, [2], "SIGSEGV", NOW)
    assert actions == [FailRun(1, "SIGSEGV"), StartWorker(2), SendRun(2, 2)]


def test_a_killed_idle_worker_costs_nothing() -> None:
    scheduler = with_ready_workers(1)
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == []
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [StartWorker(2), SendRun(2, 1)]


def test_a_job_sent_to_a_worker_that_was_dead_already_runs_elsewhere() -> None:
    scheduler = with_ready_workers(1)
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [SendRun(1, 1)]
    assert scheduler.worker_lost(1, [1], "SIGKILL", NOW) == [
        StartWorker(2),
        SendRun(2, 1),
    ]


def test_a_job_whose_worker_dies_while_starting_gets_another_worker() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert scheduler.worker_lost(1, [1], "exit 9", NOW) == [StartWorker(2), SendRun(2, 1)]


def test_five_start_failures_in_a_row_fail_what_waits_and_later_jobs_try_again() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    scheduler.submit(2, NOW, may_go_ahead=False)
    for worker in range(1, MAX_START_FAILURES):
        scheduler.worker_lost(worker, [1], "exit 9", NOW)
    actions = scheduler.worker_lost(MAX_START_FAILURES, [1], "exit 9", NOW)
    assert actions == [FailRun(1, "exit 9"), FailRun(2, "exit 9"), ReportNoWorkers("exit 9")]
    assert scheduler.unfinished == 0
    assert scheduler.submit(3, NOW, may_go_ahead=False) == [StartWorker(6), SendRun(6, 3)]


def test_where_the_machine_has_no_more_workers_to_give_those_that_there_are_do_all_jobs() -> None:
    scheduler = with_ready_workers(1, max_workers=3)
    scheduler.submit(1, NOW, may_go_ahead=False)
    assert scheduler.submit(2, NOW, may_go_ahead=False) == [StartWorker(2), SendRun(2, 2)]
    assert scheduler.worker_refused(2, "no descriptors", NOW) == []
    assert scheduler.submit(3, NOW, may_go_ahead=False) == []
    assert scheduler.run_finished(1, 1, LATE) == [SendRun(1, 2)]
    # When that one is lost there is room for another, and if it starts, for more.
    assert scheduler.worker_lost(1, [], "died", NOW) == [
        FailRun(2, "died"),
        StartWorker(3),
        SendRun(3, 3),
    ]
    scheduler.submit(4, NOW, may_go_ahead=False)
    assert scheduler.worker_ready(3, NOW) == [StartWorker(4), SendRun(4, 4)]


def test_the_only_worker_that_cannot_be_started_fails_what_waits_after_five_times() -> None:
    scheduler: Settling = Settling(3)
    assert scheduler.submit(1, NOW, may_go_ahead=False) == [StartWorker(1), SendRun(1, 1)]
    for worker in range(1, MAX_START_FAILURES):
        next_one = [StartWorker(worker + 1), SendRun(worker + 1, 1)]
        assert scheduler.worker_refused(worker, "no descriptors", NOW) == next_one
    assert scheduler.worker_refused(MAX_START_FAILURES, "no descriptors", NOW) == [
        FailRun(1, "no descriptors"),
        ReportNoWorkers("no descriptors"),
    ]


def test_a_worker_that_starts_makes_earlier_start_failures_forgotten() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    for worker in range(1, MAX_START_FAILURES):
        scheduler.worker_lost(worker, [1], "exit 9", NOW)
    scheduler.worker_ready(5, NOW)
    assert scheduler.worker_lost(5, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]
    scheduler.submit(2, NOW, may_go_ahead=False)
    for worker in range(6, 6 + MAX_START_FAILURES - 1):
        assert scheduler.worker_lost(worker, [2], "exit 9", NOW)[-1] == SendRun(worker + 1, 2)


def test_broken_fails_what_does_not_run_and_every_later_job() -> None:
    scheduler = with_ready_workers(1, max_workers=2)
    for job in (1, 2, 3):
        scheduler.submit(job, NOW, may_go_ahead=False)
    assert scheduler.broken("no such module") == [
        ReportNoWorkers("no such module"),
        TakeBack(2),
        FailRun(3, "no such module"),
    ]
    assert scheduler.taken_back(2, [2], NOW) == [FailRun(2, "no such module")]
    assert scheduler.broken("another reason") == []
    assert scheduler.run_finished(1, 1, NOW) == []
    assert scheduler.submit(4, NOW, may_go_ahead=True) == [FailRun(4, "no such module")]
    assert scheduler.worker_lost(2, [], "exit 1", NOW) == []
    assert scheduler.warm_up(NOW) == [ReportNoWorkers("no such module")]
    assert scheduler.unfinished == 0


def test_the_fork_servers_death_runs_jobs_once_more_in_their_order() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    assert scheduler.fork_server_lost({1: [2]}, "SIGKILL", "no worker", NOW) == [
        StartWorker(2),
        SendRun(2, 1),
    ]
    scheduler.worker_ready(2, NOW)
    actions = scheduler.fork_server_lost({2: []}, "SIGKILL", "no worker", NOW)
    assert actions == [FailRun(1, "SIGKILL"), StartWorker(3), SendRun(3, 2)]


def test_the_fork_servers_death_puts_what_ran_first_first() -> None:
    scheduler: Settling = Settling(2)
    for job in (1, 2, 3):
        scheduler.submit(job, NOW, may_go_ahead=False)
    scheduler.worker_ready(1, NOW)
    scheduler.worker_ready(2, NOW)
    actions = scheduler.fork_server_lost({1: [], 2: []}, "SIGKILL", "no worker", NOW)
    assert actions == [StartWorker(3), SendRun(3, 1), StartWorker(4), SendRun(4, 2)]


def test_fork_servers_that_die_again_and_again_fail_what_waits() -> None:
    scheduler: Settling = Settling(1)
    scheduler.submit(1, NOW, may_go_ahead=False)
    for worker in range(1, MAX_START_FAILURES):
        scheduler.fork_server_lost({worker: [1]}, "SIGKILL", "no worker", NOW)
    actions = scheduler.fork_server_lost({MAX_START_FAILURES: [1]}, "SIGKILL", "no worker", NOW)
    assert actions == [FailRun(1, "no worker"), ReportNoWorkers("no worker")]


def test_a_job_whose_worker_is_killed_from_outside_runs_again_as_often_as_it_may() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=1)
    scheduler.submit(2, NOW, may_go_ahead=False)
    again = [StartWorker(2), SendRun(2, 1)]
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW, is_innocent=True) == again
    scheduler.worker_ready(2, NOW)
    actions = scheduler.worker_lost(2, [], "SIGKILL", NOW, is_innocent=True)
    assert actions == [FailRun(1, "SIGKILL"), StartWorker(3), SendRun(3, 2)]


def test_a_job_that_crashes_does_not_run_again() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=3)
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]


def test_a_run_that_has_ended_but_was_not_reported_yet_has_no_worker_and_does_not_wait() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=True)
    assert scheduler.worker_of(1) == 1
    Scheduler.worker_lost(scheduler, 1, [], "SIGSEGV", NOW)
    assert scheduler.worker_of(1) is None
    assert not scheduler.waits(1)
    assert scheduler.next_actions(NOW) == [FailRun(1, "SIGSEGV")]
