"""The scheduler: first examples that read as its specification, then everything at random."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from compilepool.supervisor.rules.actions import (
    Action,
    EndForkServer,
    EndWorker,
    FailRun,
    KillWorker,
    ReplaceForkServer,
    ReportCancelled,
    ReportNoWorkers,
    ReportStarted,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_RUN_S
from compilepool.supervisor.rules.queue import MAX_RERUNS
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.rules.staffing import (
    MAX_IDLE_DEATHS,
    MAX_START_FAILURES,
    StaffingPolicy,
)
from tests.settling import Settling

NOW = 100.0
SOON = NOW + SHORT_RUN_S / (2 * MAX_AHEAD)
LATE = NOW + SHORT_RUN_S * 2


def with_ready_workers(count: int, max_workers: int | None = None) -> Settling:
    """A scheduler whose workers 1 to `count` are ready and idle."""
    scheduler: Settling = Settling(count if max_workers is None else max_workers)
    for job in range(-count, 0):
        scheduler.submit(job, NOW, may_go_ahead=False)
    for worker in range(1, count + 1):
        scheduler.worker_ready(worker, NOW)
    for worker in range(1, count + 1):
        (job,) = scheduler.runs_of(worker)
        scheduler.run_finished(worker, job, LATE)
    return scheduler


def with_a_job_ahead() -> Settling:
    """Its only worker runs job 1, and has job 2 in its socket."""
    scheduler = with_ready_workers(1)
    scheduler.submit(0, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 0, SOON)
    assert scheduler.submit(1, NOW, may_go_ahead=True) == [SendRun(1, 1)]
    assert scheduler.submit(2, NOW, may_go_ahead=True) == [SendRun(1, 2)]
    return scheduler


def crash(scheduler: Settling, worker: int, unread: Sequence[int]) -> list[Action[str]]:
    """A worker crashes, and its unread jobs are taken back when the scheduler wants them.

    Returns:
        What else the scheduler wants, in order.
    """
    wanted: list[Action[str]] = []
    pending = deque(scheduler.worker_crashing(worker, NOW))
    while pending:
        action = pending.popleft()
        if action == TakeBack(worker):
            pending.extendleft(reversed(scheduler.taken_back(worker, unread, NOW)))
        else:
            wanted.append(action)
    assert not set(unread) & set(scheduler.runs_of(worker))
    return wanted


def with_a_crashing_worker() -> Settling:
    """Its worker 1 crashes with job 1, worker 2 starts in its place with job 2, and job 3 waits."""
    scheduler = with_ready_workers(1)
    for job in (1, 2, 3):
        scheduler.submit(job, NOW, may_go_ahead=False)
    assert crash(scheduler, 1, []) == [StartWorker(2), SendRun(2, 2)]
    return scheduler


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
    assert scheduler.taken_back(1, [2], LATE) == [ReportStarted(1)]
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
    assert scheduler.taken_back(2, [14], LATE) == [ReportStarted(11), SendRun(1, 14)]


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


def test_cancelling_a_running_job_kills_its_worker_which_is_replaced_at_once() -> None:
    scheduler = with_a_job_ahead()
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]
    replaced = [KillWorker(1), StartWorker(2), SendRun(2, 2)]
    assert scheduler.taken_back(1, [2], NOW) == replaced
    assert scheduler.cancel(1, NOW) == [TakeBack(1)]  # no second kill
    assert scheduler.taken_back(1, [], NOW) == []
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ReportCancelled(1)]


def test_a_job_over_its_limit_ends_alone_and_its_worker_is_replaced_at_once() -> None:
    scheduler = with_a_job_ahead()
    scheduler.tick(LATE)
    assert scheduler.taken_back(1, [2], LATE) == [ReportStarted(1)]
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
    assert scheduler.worker_lost(1, [], "timeout", NOW) == [ReportCancelled(1)]


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


def test_a_job_whose_worker_is_killed_from_outside_runs_again_as_often_as_it_may() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=1)
    scheduler.submit(2, NOW, may_go_ahead=False)
    again = [StartWorker(2), SendRun(2, 1)]
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW, is_from_outside=True) == again
    scheduler.worker_ready(2, NOW)
    actions = scheduler.worker_lost(2, [], "SIGKILL", NOW, is_from_outside=True)
    assert actions == [FailRun(1, "SIGKILL"), StartWorker(3), SendRun(3, 2)]


def test_a_job_that_crashes_does_not_run_again() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=3)
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [FailRun(1, "SIGSEGV")]


def test_a_cancelled_job_does_not_run_again() -> None:
    scheduler = with_ready_workers(1)
    scheduler.submit(1, NOW, may_go_ahead=False, retries=3)
    scheduler.cancel(1, NOW)
    actions = scheduler.worker_lost(1, [], "SIGKILL", NOW, is_from_outside=True)
    assert actions == [ReportCancelled(1)]


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
    assert scheduler.cancel(2, NOW) == [ReportCancelled(2), StartWorker(2), SendRun(2, 3)]


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


def test_cancelling_a_job_that_is_not_running_kills_nothing() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    assert scheduler.cancel(3, NOW) == [ReportCancelled(3)]
    assert scheduler.cancel(2, NOW) == [TakeBack(1)]
    assert scheduler.taken_back(1, [2], NOW) == [ReportCancelled(2)]
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
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ReportCancelled(2)]


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
    assert scheduler.fork_server_lost({1: []}, "SIGKILL", "no worker", NOW) == [ReportCancelled(1)]


def test_cancel_queued_cancels_the_jobs_that_no_worker_has() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    scheduler.submit(4, NOW, may_go_ahead=False)
    assert scheduler.cancel_queued(NOW) == [ReportCancelled(3), ReportCancelled(4)]
    assert scheduler.runs_of(1) == [1, 2]


def test_a_job_has_a_worker_from_when_it_is_sent_until_it_is_taken_back() -> None:
    scheduler = with_a_job_ahead()
    scheduler.submit(3, NOW, may_go_ahead=False)
    assert [scheduler.worker_of(job) for job in (1, 2, 3)] == [1, 1, None]
    scheduler.tick(LATE)
    scheduler.taken_back(1, [2], LATE)
    assert [scheduler.worker_of(job) for job in (1, 2, 3)] == [1, None, None]


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
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [ReportCancelled(1)]


def test_a_worker_that_crashes_before_its_kill_comes_has_its_place_filled_once() -> None:
    scheduler = with_a_job_ahead()
    scheduler.cancel(1, NOW)
    replaced = [KillWorker(1), StartWorker(2), SendRun(2, 2)]
    assert scheduler.taken_back(1, [2], NOW) == replaced
    assert crash(scheduler, 1, []) == []
    assert scheduler.worker_lost(1, [], "SIGSEGV", NOW) == [ReportCancelled(1)]


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


READY = -1
"""What a worker says when it has started; all else that it says are the jobs that it ended."""


class Process:
    """What a worker really is, of which the scheduler only hears."""

    def __init__(self, generation: int) -> None:
        self.is_alive = True
        self.is_doomed = False  # a SIGKILL is on its way
        self.is_ready = False
        self.has_crashed = False
        self.is_parked = False  # with the thread that runs jobs; else it goes on meanwhile
        self.socket: deque[int] = deque()
        self.running: int | None = None
        self.is_killed_from_outside = False
        self.is_ending = False  # it exits in order when it is ready
        self.generation = generation  # of the fork server that it comes from
        self.given = 0  # jobs that it has had, those taken back not counted
        self.said: deque[int] = deque()
        """What it has sent and the supervisor has not read yet."""
        # What the supervisor has heard of it, or decided:
        self.is_known_ready = False
        self.known_since = 0.0
        self.is_known_crashing = False
        self.is_replaceable = False


class Pool(RuleBasedStateMachine):
    """A scheduler, and processes that do what it says while everything happens to them."""

    @initialize(
        max_workers=st.integers(1, 3),
        is_warm=st.booleans(),
        min_workers=st.sampled_from([0, 0, 1, 3]),
        idle_timeout_s=st.sampled_from([None, 0.02, 0.2]),
        max_jobs=st.sampled_from([None, None, 1, 2, 5]),
    )
    def start(
        self,
        max_workers: int,
        is_warm: bool,
        min_workers: int,
        idle_timeout_s: float | None,
        max_jobs: int | None,
    ) -> None:
        self.expected: dict[int, int] = {}
        self.free: float = math.inf
        self.priority: dict[int, int] = {}
        self.retries: dict[int, int] = {}
        self.reported: set[tuple[int | None, int]] = set()
        self.over_limit: set[int] = set()
        self.policy = StaffingPolicy(min(min_workers, max_workers), idle_timeout_s, max_jobs)
        self.scheduler: Scheduler[str] = Scheduler(
            max_workers, self.expected.__getitem__, self.policy
        )
        self.max_workers = max_workers
        self.generation = 0
        self.has_fork_server = True
        self.was_told_to_quiesce = False
        self.are_outgrown = False
        self.now = NOW
        self.processes: dict[int, Process] = {}
        self.stillborn: set[int] = set()
        self.starts_that_fail = 0
        self.may_go_ahead: dict[int, bool] = {}
        self.ends: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.ever_sent: set[int] = set()
        self.runs: Counter[int] = Counter()
        self.allowed_runs: dict[int, int] = {}
        self.first_reads: list[int] = []
        self.is_broken = False
        self.start_failures = 0
        if is_warm:
            # All are ready, and the last job was short.
            self.submit(may_go_ahead=True, count=max_workers, priority=0, retries=0, expected=0)
            for pick in range(max_workers):
                self.go_on(pick, steps=3)
            self.hear_all()

    # What the supervisor does

    def perform(self) -> None:
        """As the supervisor's pool does after events."""
        while actions := self.scheduler.next_actions(self.now):
            self.carry_out(actions)

    def carry_out(self, actions: Sequence[Action[str]]) -> None:
        stillborn: list[int] = []
        for action in actions:
            if isinstance(action, StartWorker):
                assert not self.is_broken
                assert action.worker not in self.processes
                assert len(self.processes) < 2 * self.max_workers
                self.has_fork_server = True
                self.processes[action.worker] = Process(self.generation)
                if self.starts_that_fail:
                    self.starts_that_fail -= 1
                    self.stillborn.add(action.worker)
                    stillborn.append(action.worker)
            elif isinstance(action, SendRun):
                self.send(action.worker, action.run)
            elif isinstance(action, TakeBack):
                assert action.worker not in self.stillborn
                socket = self.processes[action.worker].socket
                unread = list(socket)
                socket.clear()
                self.processes[action.worker].given -= len(unread)
                self.scheduler.taken_back(action.worker, unread, self.now)
                self.note_idle_or_begun(action.worker)
            elif isinstance(action, KillWorker):
                process = self.processes[action.worker]
                assert not process.is_doomed
                if process.is_alive and process.running is not None:
                    wanted = self.cancelled | self.over_limit
                    assert process.running in wanted, "an innocent job is killed"
                process.is_doomed = process.is_replaceable = True
            elif isinstance(
                action, EndWorker | EndForkServer | ReplaceForkServer | ReportNoWorkers
            ):
                self.let_go(action)
            elif isinstance(action, ReportStarted):
                assert action.run not in self.ends
                self.reported.add((self.scheduler.worker_of(action.run), action.run))
            elif isinstance(action, ReportCancelled):
                assert action.run in self.cancelled
                self.end(action.run, "cancelled")
            else:
                assert action.run not in self.cancelled
                self.end(action.run, action.reason)
        self.refuse(stillborn)

    def refuse(self, stillborn: Sequence[int]) -> None:
        """These could not be started."""
        for worker in stillborn:
            self.stillborn.discard(worker)
            del self.processes[worker]
            unread = self.scheduler.runs_of(worker)
            self.scheduler.worker_lost(worker, unread, "start", self.now)
            actions = self.scheduler.next_actions(self.now)
            self.check_start_failure(actions)
            self.carry_out(actions)

    def let_go(
        self, action: EndWorker | EndForkServer | ReplaceForkServer | ReportNoWorkers[str]
    ) -> None:
        if isinstance(action, EndWorker):
            if action.worker in self.stillborn:
                return
            process = self.processes[action.worker]
            assert not process.is_ending
            assert not process.is_doomed
            assert not self.scheduler.runs_of(action.worker)
            process.is_ending = process.is_replaceable = True
        elif isinstance(action, EndForkServer):
            assert self.has_fork_server
            assert not self.processes
            assert not self.scheduler.unfinished
            assert not self.policy.min_workers or self.was_told_to_quiesce
            self.has_fork_server = False
        elif isinstance(action, ReplaceForkServer):
            self.generation += 1
            self.has_fork_server = True

    def send(self, worker: int, job: int) -> None:
        assert not self.is_broken
        assert job not in self.ends
        assert job not in self.cancelled
        assert not any(
            job in process.socket or job == process.running for process in self.processes.values()
        )
        if job not in self.ever_sent:
            waiting = set(self.may_go_ahead) - set(self.ends) - self.jobs_at_workers()
            order = {each: (-self.priority[each], each) for each in {job, *waiting}}
            assert order[job] == min(order.values()), "not first come, first served"
            self.ever_sent.add(job)
        sent = self.jobs_sent()
        if sent and self.expected[job]:
            assert sum(self.expected[each] for each in {job, *sent}) <= self.free
        process = self.processes[worker]
        assert not process.is_known_crashing
        assert not process.is_ending
        assert process.generation == self.generation
        if worker not in self.stillborn:
            process.socket.append(job)
        process.given += 1
        assert process.given <= (self.policy.max_runs_per_worker or math.inf)
        if self.scheduler.runs_of(worker)[0] == job:
            process.known_since = self.now
        else:
            assert process.is_known_ready
            assert self.may_go_ahead[job]

    def note_idle_or_begun(self, worker: int) -> None:
        if not self.scheduler.runs_of(worker):
            self.processes[worker].known_since = self.now

    def end(self, job: int, how: str) -> None:
        assert job in self.may_go_ahead
        assert job not in self.ends
        self.ends[job] = how

    def hear_one(self, worker: int, *, settle: bool = True) -> None:
        process = self.processes[worker]
        word = process.said.popleft()
        process.known_since = self.now
        if word == READY:
            self.start_failures = 0
            process.is_known_ready = True
            process.is_replaceable |= process.is_known_crashing
            self.scheduler.worker_ready(worker, self.now)
        else:
            self.scheduler.run_finished(worker, word, self.now, is_outgrown=self.are_outgrown)
            self.end(word, "result")
        if settle:
            self.perform()

    def hear_crash(self, worker: int) -> None:
        process = self.processes[worker]
        process.is_known_crashing = True
        process.is_replaceable |= process.is_known_ready
        unread = set(process.socket)
        self.scheduler.worker_crashing(worker)
        self.perform()
        for job in unread - set(self.ends):
            assert self.scheduler.worker_of(job) != worker

    def bury(self, worker: int) -> None:
        process = self.processes[worker]
        while process.said:
            self.hear_one(worker)
        unread = list(process.socket)
        jobs = self.scheduler.runs_of(worker)
        del self.processes[worker]
        cause = "crash" if process.is_known_ready else "start"
        is_from_outside = process.is_killed_from_outside and not process.is_doomed
        self.scheduler.worker_lost(worker, unread, cause, self.now, is_from_outside=is_from_outside)
        actions = self.scheduler.next_actions(self.now)
        for job in set(jobs) - set(unread) - self.cancelled:
            if is_from_outside and self.retries[job]:
                self.retries[job] -= 1
                assert FailRun(job, cause) not in actions
            else:
                assert FailRun(job, cause) in actions
        if not process.is_known_ready and not process.is_doomed and not process.is_ending:
            self.check_start_failure(actions)
        self.carry_out(actions)
        self.perform()

    def check_start_failure(self, actions: Sequence[Action[str]]) -> None:
        self.start_failures += 1
        if self.start_failures == MAX_START_FAILURES:
            self.start_failures = 0
            assert not any(isinstance(action, StartWorker) for action in actions)
        elif not self.is_broken:
            assert not any(isinstance(action, FailRun) for action in actions)

    # Helpers

    def jobs_at_workers(self) -> set[int]:
        """As the scheduler sees it."""
        return {job for worker in self.processes for job in self.scheduler.runs_of(worker)}

    def jobs_sent(self) -> set[int]:
        """As it is, but for those whose end has been heard."""
        sent: set[int] = set()
        for process in self.processes.values():
            sent.update(process.socket)
            sent.update(word for word in process.said if word != READY)
            if process.running is not None:
                sent.add(process.running)
        return sent

    def waiting(self) -> set[int]:
        return set(self.may_go_ahead) - set(self.ends) - self.jobs_at_workers()

    def has_room(self) -> bool:
        """Whether there may be another worker."""
        held = [process for process in self.processes.values() if not process.is_replaceable]
        return len(held) < self.max_workers and len(self.processes) < 2 * self.max_workers

    def may_run_more(self) -> bool:
        """Whether another worker may have a job."""
        busy = [
            worker
            for worker, process in self.processes.items()
            if self.scheduler.runs_of(worker)
            and not (process.is_doomed or process.is_known_crashing)
        ]
        return len(busy) < self.max_workers

    def choose(self, pick: int, candidates: Sequence[int]) -> int | None:
        return candidates[pick % len(candidates)] if candidates else None

    def alive(self) -> list[int]:
        return [worker for worker, process in self.processes.items() if process.is_alive]

    def talking(self) -> list[int]:
        return [worker for worker, process in self.processes.items() if process.said]

    def crashed_unheard(self) -> list[int]:
        return [
            worker
            for worker, process in self.processes.items()
            if process.has_crashed and not process.is_known_crashing
        ]

    # What clients do

    @rule(
        may_go_ahead=st.booleans(),
        count=st.integers(1, 4),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        retries=st.sampled_from([0, 0, 1, 2]),
        expected=st.sampled_from([0, 0, 1, 5]),
    )
    def submit(
        self, may_go_ahead: bool, count: int, priority: int, retries: int, expected: int
    ) -> None:
        for _ in range(count):
            job = len(self.may_go_ahead) + 1
            self.may_go_ahead[job] = may_go_ahead
            self.priority[job] = priority
            self.retries[job] = retries
            self.expected[job] = expected
            self.allowed_runs[job] = 1 + MAX_RERUNS + retries
            self.scheduler.submit(
                job, may_go_ahead=may_go_ahead, priority=priority, retries=retries
            )
            self.was_told_to_quiesce &= self.is_broken  # then it fails, and wakes nobody
        self.perform()

    @precondition(lambda self: self.scheduler.unfinished)
    @rule(pick=st.integers(0, 30))
    def cancel(self, pick: int) -> None:
        self.cancel_one_of(pick, set(self.may_go_ahead) - set(self.ends))

    @precondition(lambda self: self.jobs_at_workers())
    @rule(pick=st.integers(0, 5), steps=st.integers(0, 4))
    def cancel_what_a_worker_has(self, pick: int, steps: int) -> None:
        """What the workers do just before has not been heard when the cancellation comes."""
        for worker in range(len(self.alive())):
            self.go_on(worker, steps)
        self.cancel_one_of(pick, self.jobs_at_workers())

    def cancel_one_of(self, pick: int, jobs: set[int]) -> None:
        job = self.choose(pick, sorted(jobs))
        assert job is not None
        self.cancelled.add(job)
        self.scheduler.cancel(job)
        self.perform()

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 30))
    def cancel_what_has_ended(self, pick: int) -> None:
        job = self.choose(pick, sorted(self.ends))
        assert job is not None
        self.perform()
        self.scheduler.cancel(job)
        assert self.scheduler.next_actions(self.now) == []

    @rule()
    def cancel_queued(self) -> None:
        waiting = self.waiting()
        self.cancelled |= waiting
        for job in sorted(waiting):
            self.scheduler.cancel(job)
        self.perform()
        assert waiting <= set(self.ends)

    @rule()
    def warm_up(self) -> None:
        is_doing_well = not self.starts_that_fail
        self.was_told_to_quiesce &= self.is_broken
        self.scheduler.warm_up()
        self.perform()
        if is_doing_well and not self.is_broken:
            assert not self.has_room()

    @rule(keeps_fork_server=st.booleans())
    def quiesce(self, keeps_fork_server: bool) -> None:
        self.was_told_to_quiesce = True
        self.scheduler.quiesce(keeps_fork_server=keeps_fork_server)
        self.perform()
        assert not self.idle() or self.waiting()

    @rule()
    def reload(self) -> None:
        self.note_reload()
        had_fork_server = self.has_fork_server
        before = self.generation
        self.scheduler.reload()
        self.perform()
        assert self.generation == before + had_fork_server
        for process in self.processes.values():
            assert process.generation == self.generation or not process.socket

    def note_reload(self) -> None:
        self.is_broken = False
        self.start_failures = 0
        for process in self.processes.values():
            process.is_replaceable |= not (process.is_known_crashing or process.is_doomed)

    @rule(are_outgrown=st.booleans())
    def grow(self, are_outgrown: bool) -> None:
        self.are_outgrown = are_outgrown

    # What workers do

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 2), steps=st.integers(1, 4))
    def go_on(self, pick: int, steps: int) -> None:
        """A worker does what is next: becomes ready, reads a job, ends it, reads the next."""
        worker = self.choose(pick, self.alive())
        assert worker is not None
        process = self.processes[worker]
        for _ in range(steps):
            if process.is_parked:
                return
            if not process.is_ready:
                process.is_ready = True
                process.said.append(READY)
            elif process.running is not None:
                process.said.append(process.running)
                process.running = None
            elif process.socket:
                self.begin(process, process.socket.popleft())
            elif process.is_ending:
                process.is_alive = False
                return

    def begin(self, process: Process, job: int) -> None:
        process.running = job
        assert job not in self.ends
        assert job not in self.cancelled
        self.runs[job] += 1
        assert self.runs[job] <= self.allowed_runs[job]
        if self.runs[job] == 1:
            self.first_reads.append(job)

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 2), is_from_outside=st.booleans())
    def die(self, pick: int, is_from_outside: bool) -> None:
        worker = self.choose(pick, self.alive())
        assert worker is not None
        self.processes[worker].is_alive = False
        self.processes[worker].is_killed_from_outside = is_from_outside

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 5), is_parked=st.booleans(), is_heard=st.booleans())
    def crash(self, pick: int, is_parked: bool, is_heard: bool) -> None:
        """Its death, if it has not been killed before, comes when it has been looked into."""
        worker = self.choose(pick, self.alive())
        assert worker is not None
        process = self.processes[worker]
        process.has_crashed = True
        process.is_parked |= is_parked
        if is_heard and not process.is_known_crashing:
            self.hear_crash(worker)

    @precondition(lambda self: self.alive())
    @rule(are_ready=st.booleans(), is_parked=st.booleans())
    def crash_all(self, are_ready: bool, is_parked: bool) -> None:
        """As when all kernels make the same compiler crash."""
        for worker in self.alive():
            if are_ready:
                self.go_on(self.alive().index(worker), steps=2)
                while worker in self.processes and self.processes[worker].said:
                    self.hear_one(worker)
            self.processes[worker].has_crashed = True
            self.processes[worker].is_parked |= is_parked
        for worker in self.crashed_unheard():
            self.hear_crash(worker)

    # What the supervisor hears

    @precondition(lambda self: self.talking())
    @rule(pick=st.integers(0, 2))
    def hear(self, pick: int) -> None:
        worker = self.choose(pick, self.talking())
        assert worker is not None
        self.hear_one(worker)

    @rule()
    def hear_all(self) -> None:
        while talking := self.talking():
            self.hear_one(talking[0], settle=False)
        self.perform()

    @precondition(lambda self: self.crashed_unheard())
    @rule(pick=st.integers(0, 5))
    def hear_of_a_crash(self, pick: int) -> None:
        worker = self.choose(pick, self.crashed_unheard())
        assert worker is not None
        self.hear_crash(worker)

    @precondition(lambda self: len(self.alive()) < len(self.processes))
    @rule(pick=st.integers(0, 2))
    def hear_of_a_death(self, pick: int) -> None:
        worker = self.choose(pick, sorted(set(self.processes) - set(self.alive())))
        assert worker is not None
        self.bury(worker)

    @rule(pick=st.integers(0, 5))
    def see_a_job_over_its_limit(self, pick: int) -> None:
        """Only of those that have been reported is the time known. It may just have ended."""
        firsts = {worker: self.scheduler.runs_of(worker)[:1] for worker in self.processes}
        running = [
            worker
            for worker, jobs in firsts.items()
            if {(worker, job) for job in jobs} & self.reported
        ]
        worker = self.choose(pick, running)
        if worker is None:
            return
        process, (job,) = self.processes[worker], firsts[worker]
        self.over_limit.add(job)
        is_leaving = process.is_doomed or process.is_known_crashing or process.is_ending
        assert self.scheduler.over_limit(worker, job) == (not is_leaving)
        actions = self.scheduler.next_actions(self.now)
        assert (KillWorker(worker) in actions) == (not is_leaving)
        self.carry_out(actions)
        self.perform()

    @rule(pick=st.integers(0, 5))
    def see_another_job_over_its_limit(self, pick: int) -> None:
        worker = self.choose(pick, sorted(self.processes))
        if worker is not None:
            assert not self.scheduler.over_limit(worker, 0)

    @rule(free=st.sampled_from([-5, 0, 3, 10, 1000]))
    def see_how_much_memory_there_is(self, free: int) -> None:
        self.free = free
        self.scheduler.memory_seen(free, {})
        self.perform()

    @precondition(lambda self: self.generation)
    @rule()
    def lose_the_fork_servers_that_were_replaced(self) -> None:
        unread = self.lose_workers(range(self.generation))
        self.scheduler.fork_server_lost(unread, "fork server", "no worker", was_leaving=True)
        self.perform()

    def lose_workers(self, generations: Collection[int]) -> dict[int, list[int]]:
        """Returns what they had not read."""
        lost = {
            worker: process
            for worker, process in self.processes.items()
            if process.generation in generations
        }
        for process in lost.values():
            process.is_alive = False
        for worker, process in lost.items():
            while process.said:
                self.hear_one(worker)
        for worker in lost:
            del self.processes[worker]
        return {worker: list(process.socket) for worker, process in lost.items()}

    @precondition(lambda self: self.has_fork_server)
    @rule(is_to_die_again=st.booleans())
    def lose_the_fork_server(self, is_to_die_again: bool) -> None:
        unread = self.lose_workers([self.generation])
        self.scheduler.fork_server_lost(unread, "fork server", "no worker")
        actions = self.scheduler.next_actions(self.now)
        self.start_failures += 1
        if self.start_failures == MAX_START_FAILURES:
            self.start_failures = 0
            assert not any(isinstance(action, StartWorker) for action in actions)
        self.carry_out(actions)
        self.perform()
        if is_to_die_again:
            for pick in range(len(self.alive())):
                self.go_on(pick, steps=2)
            self.lose_the_fork_server(False)

    @precondition(lambda self: self.processes)
    @rule(
        first=st.sampled_from(["cancel", "reload", "crash", "broken"]),
        pick=st.integers(0, 5),
        is_fork_server=st.booleans(),
    )
    def hear_of_two_things_at_once(self, first: str, pick: int, is_fork_server: bool) -> None:
        """What the first leads to has not been done when a worker or the fork server dies."""
        worker = self.choose(pick, sorted(self.processes))
        assert worker is not None
        process = self.processes[worker]
        if first == "cancel" and (jobs := self.scheduler.runs_of(worker)):
            self.cancelled.add(jobs[-1])
            self.scheduler.cancel(jobs[-1])
        elif first == "reload":
            self.note_reload()
            self.scheduler.reload()
        elif first == "crash" and process.is_alive and not process.is_known_crashing:
            process.is_known_crashing = process.has_crashed = True
            process.is_replaceable |= process.is_known_ready
            self.scheduler.worker_crashing(worker)
        elif first == "broken" and len(self.may_go_ahead) > 8:
            self.is_broken = True
            self.scheduler.broken("broken")
        if is_fork_server and self.has_fork_server:
            self.lose_the_fork_server(False)
        else:
            process.is_alive = False
            self.bury(worker)

    @rule(count=st.integers(1, MAX_START_FAILURES + 1))
    def run_out_of_processes(self, count: int) -> None:
        self.starts_that_fail = count

    @precondition(lambda self: len(self.may_go_ahead) > 8)
    @rule(dice=st.integers(0, 3))
    def be_broken(self, dice: int) -> None:
        if dice == 0:
            self.is_broken = True
            self.scheduler.broken("broken")
            self.perform()

    # Time

    @rule(milliseconds=st.sampled_from([0.1, 1.0, 10.0]))
    def pass_time(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000

    @rule()
    def tick(self) -> None:
        self.perform()
        tick = self.scheduler.wakes_at()
        assert tick is None or tick > self.now
        if self.policy.idle_timeout_s is not None:
            idle = [self.processes[worker] for worker in self.idle()]
            longest_s = max((self.now - process.known_since for process in idle), default=0.0)
            staying = [each for each in self.processes.values() if not each.is_replaceable]
            is_few = len(staying) <= self.policy.min_workers
            some_start = any(not each.is_known_ready for each in self.processes.values())
            assert longest_s < self.policy.idle_timeout_s or is_few or some_start
        for worker, process in self.processes.items():
            if process.is_known_ready and len(self.scheduler.runs_of(worker)) > 1:
                has_run_long = self.now - process.known_since >= SHORT_RUN_S
                assert not (process.socket and has_run_long), "waits behind a long job"

    # What holds at any time

    @invariant()
    def every_unfinished_job_is_known(self) -> None:
        assert self.scheduler.unfinished == len(self.may_go_ahead) - len(self.ends)

    @invariant()
    def jobs_sent_are_where_the_scheduler_thinks(self) -> None:
        for worker, process in self.processes.items():
            jobs = self.scheduler.runs_of(worker)
            assert len(jobs) <= 1 + MAX_AHEAD
            ended = [word for word in process.said if word != READY]
            running = [] if process.running is None else [process.running]
            assert jobs == [*ended, *running, *process.socket]
            assert all(self.scheduler.worker_of(job) == worker for job in jobs)
        assert all(self.scheduler.worker_of(job) is None for job in self.waiting())

    @invariant()
    def a_worker_known_to_crash_has_no_unread_job(self) -> None:
        for process in self.processes.values():
            assert not (process.is_known_crashing and process.socket)

    @invariant()
    def there_are_not_too_many_workers(self) -> None:
        busy = [
            worker
            for worker, process in self.processes.items()
            if self.scheduler.runs_of(worker)
            and not (process.is_doomed or process.is_known_crashing)
        ]
        assert len(busy) <= self.max_workers
        assert len(self.processes) <= 2 * self.max_workers

    @invariant()
    def a_pool_that_sleeps_has_no_idle_worker(self) -> None:
        if self.was_told_to_quiesce:
            assert not self.idle() or self.waiting()
        if self.scheduler.is_asleep:
            assert not self.processes

    @invariant()
    def nobody_is_idle_while_jobs_wait(self) -> None:
        if self.scheduler.is_short_of_memory:
            assert self.jobs_at_workers(), "one always runs"
            assert self.waiting()
        elif self.waiting():
            assert not self.is_broken
            assert not self.has_room() or not self.may_run_more()
            assert not self.idle() or not self.may_run_more()

    @invariant()
    def no_job_waits_for_a_starting_worker_while_another_is_idle(self) -> None:
        if self.idle():
            starting = [p for p in self.processes.values() if not p.is_known_ready]
            assert not any(process.socket for process in starting if not process.is_doomed)

    @invariant()
    def a_cancelled_job_that_runs_is_killed(self) -> None:
        for process in self.processes.values():
            if process.running in self.cancelled:
                assert process.is_doomed

    @invariant()
    def one_worker_runs_jobs_in_their_order(self) -> None:
        if self.max_workers == 1:
            for priority in set(self.priority.values()):
                reads = [job for job in self.first_reads if self.priority[job] == priority]
                assert reads == sorted(reads)

    def idle(self) -> list[int]:
        return [
            worker
            for worker, process in self.processes.items()
            if process.is_known_ready
            and not process.is_doomed
            and not process.is_known_crashing
            and not process.is_ending
            and not self.scheduler.runs_of(worker)
        ]

    # The end: let everything run its course

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.starts_that_fail = 0
        self.see_how_much_memory_there_is(1000)
        for _ in range(20 * (len(self.may_go_ahead) + 1)):
            if not self.scheduler.unfinished:
                break
            self.let_time_pass(SHORT_RUN_S)
        self.every_unfinished_job_is_known()
        assert self.scheduler.unfinished == 0
        if self.policy.idle_timeout_s is None:
            assert self.scheduler.wakes_at() is None
        self.let_all_end()
        assert set(self.ends) == set(self.may_go_ahead)
        for job in self.cancelled:
            assert self.ends[job] in ("cancelled", "result")
        for job, how in self.ends.items():
            if how == "crash":
                assert self.runs[job] >= 1
            if how == "start":
                # Only a job that was lost with a fork server has run before it waits again.
                assert self.runs[job] <= self.allowed_runs[job] - 1

    def let_time_pass(self, seconds: float) -> None:
        for worker in list(self.processes):
            process = self.processes[worker]
            process.is_alive &= not (process.is_doomed or process.is_known_crashing)
            if worker in self.crashed_unheard():
                self.hear_crash(worker)
            if process.said:
                self.hear_one(worker)
            elif not process.is_alive:
                self.bury(worker)
        self.now += seconds
        self.tick()
        for index in range(len(self.alive())):
            self.go_on(index, 1)

    def let_all_end(self) -> None:
        """With an idle timer by itself, else when it is told to."""
        has_timer = self.policy.idle_timeout_s is not None and not self.policy.min_workers
        if not has_timer or self.was_told_to_quiesce:
            self.quiesce(keeps_fork_server=False)
        for _ in range(10 * self.max_workers + MAX_IDLE_DEATHS):
            if not self.has_fork_server:
                break
            self.let_time_pass((self.policy.idle_timeout_s or 0.0) + SHORT_RUN_S)
        assert not self.processes
        assert not self.has_fork_server


Pool.TestCase.settings = settings(max_examples=500, stateful_step_count=50)
TestPool = Pool.TestCase
