"""How many workers there are: examples that read as the specification. `test_scheduler_at_random`
has the properties."""

from __future__ import annotations

import pytest

from compilepool.supervisor.rules.actions import (
    EndForkServer,
    EndWorker,
    ReplaceForkServer,
    ReportNoWorkers,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.dispatch import SHORT_RUN_S
from compilepool.supervisor.rules.staffing import (
    MAX_IDLE_DEATHS,
    MAX_START_FAILURES,
    StaffingPolicy,
)
from compilepool.wire.messages import Readiness
from tests.logic.schedulers import Settling

NOW = 100.0
LATE = NOW + 2 * SHORT_RUN_S
IDLE_S = 10.0


def pool(max_workers: int, **policy: float) -> Settling:
    return Settling(max_workers, staffing=StaffingPolicy(**policy))  # type: ignore[arg-type] # by name


def warm(max_workers: int, **policy: float) -> Settling:
    """All its workers are ready, and idle."""
    scheduler = pool(max_workers, **policy)
    scheduler.warm_up(NOW)
    for worker in range(1, max_workers + 1):
        scheduler.worker_ready(worker, NOW)
    assert is_warm(scheduler)
    return scheduler


def is_warm(scheduler: Settling) -> bool:
    return scheduler.readiness is Readiness.ALL


def submit(scheduler: Settling, job: int, now: float = NOW) -> list[object]:
    return list(scheduler.submit(job, now, may_go_ahead=False))


def test_a_warm_worker_that_dies_is_replaced_at_once() -> None:
    scheduler = warm(2)
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [StartWorker(3)]
    assert not is_warm(scheduler)
    scheduler.worker_ready(3, NOW)
    assert is_warm(scheduler)


def test_warm_workers_that_die_again_and_again_are_not_replaced_for_ever() -> None:
    scheduler = warm(1)
    for worker in range(1, MAX_IDLE_DEATHS):
        assert scheduler.worker_lost(worker, [], "SIGSEGV", NOW) == [StartWorker(worker + 1)]
        scheduler.worker_ready(worker + 1, NOW)
    gives_up = [ReportNoWorkers("SIGSEGV")]
    assert scheduler.worker_lost(MAX_IDLE_DEATHS, [], "SIGSEGV", NOW) == gives_up
    last = MAX_IDLE_DEATHS + 1
    assert submit(scheduler, 1) == [StartWorker(last), SendRun(last, 1)]


def test_workers_that_cannot_start_are_given_up_and_whoever_waits_is_told() -> None:
    scheduler = pool(1)
    assert scheduler.warm_up(NOW) == [StartWorker(1)]
    for worker in range(1, MAX_START_FAILURES):
        assert scheduler.worker_lost(worker, [], "exit 9", NOW) == [StartWorker(worker + 1)]
    last = MAX_START_FAILURES
    assert scheduler.worker_lost(last, [], "exit 9", NOW) == [ReportNoWorkers("exit 9")]
    assert scheduler.warm_up(NOW) == [StartWorker(last + 1)]


def test_quiesce_ends_idle_workers_and_then_the_fork_server() -> None:
    scheduler = warm(2)
    actions = scheduler.quiesce(NOW, keeps_fork_server=False)
    assert actions == [EndWorker(1), EndWorker(2)]
    assert scheduler.worker_lost(1, [], "exit 0", NOW) == []
    assert not scheduler.is_asleep
    assert scheduler.worker_lost(2, [], "exit 0", NOW) == [EndForkServer()]
    assert scheduler.is_asleep
    assert scheduler.quiesce(NOW, keeps_fork_server=False) == []


def test_quiesce_may_leave_the_fork_server_until_it_is_told_again() -> None:
    scheduler = warm(1)
    scheduler.quiesce(NOW, keeps_fork_server=True)
    assert scheduler.worker_lost(1, [], "exit 0", NOW) == []
    assert scheduler.quiesce(NOW, keeps_fork_server=False) == [EndForkServer()]


def test_jobs_that_wait_run_before_a_pool_sleeps() -> None:
    scheduler = warm(1)
    assert submit(scheduler, 1) == [SendRun(1, 1)]
    assert submit(scheduler, 2) == []
    assert scheduler.quiesce(NOW, keeps_fork_server=False) == []
    assert scheduler.run_finished(1, 1, LATE) == [SendRun(1, 2)]
    assert scheduler.run_finished(1, 2, LATE) == [EndWorker(1)]
    assert scheduler.worker_lost(1, [], "exit 0", LATE) == [EndForkServer()]


def test_a_job_wakes_the_pool_up_while_its_workers_are_still_leaving() -> None:
    scheduler = warm(1)
    scheduler.quiesce(NOW, keeps_fork_server=False)
    assert submit(scheduler, 1) == [StartWorker(2), SendRun(2, 1)]
    assert scheduler.worker_lost(1, [], "exit 0", NOW) == []
    scheduler.worker_ready(2, NOW)
    assert scheduler.run_finished(2, 1, LATE) == []
    assert is_warm(scheduler)


def test_a_starting_worker_without_a_job_is_ended_by_quiesce_as_well() -> None:
    scheduler = pool(1)
    scheduler.warm_up(NOW)
    assert scheduler.quiesce(NOW, keeps_fork_server=False) == [EndWorker(1)]
    assert scheduler.worker_ready(1, NOW) == []
    assert scheduler.worker_lost(1, [], "exit 0", NOW) == [EndForkServer()]


def test_the_timer_ends_who_has_been_idle_for_long_then_the_pool_sleeps() -> None:
    scheduler = warm(2, idle_timeout_s=IDLE_S)
    assert submit(scheduler, 1) == [SendRun(2, 1)]
    scheduler.tick(LATE)
    assert scheduler.wakes_at() == NOW + IDLE_S
    assert scheduler.tick(NOW + IDLE_S) == [EndWorker(1)]
    scheduler.worker_lost(1, [], "exit 0", NOW + IDLE_S)
    assert scheduler.wakes_at() is None  # the other one has a job
    end = NOW + 2 * IDLE_S
    assert scheduler.run_finished(2, 1, end) == []
    assert scheduler.wakes_at() == end + IDLE_S
    assert scheduler.tick(end + IDLE_S) == [EndWorker(2)]
    assert scheduler.worker_lost(2, [], "exit 0", end + IDLE_S) == [EndForkServer()]
    assert scheduler.wakes_at() is None


def test_a_pool_without_workers_sleeps_as_well_when_its_time_is_over() -> None:
    scheduler = warm(1, idle_timeout_s=IDLE_S)
    submit(scheduler, 1)
    scheduler.quiesce(NOW, keeps_fork_server=True)
    scheduler.cancel_queued(NOW)
    assert scheduler.worker_lost(1, [], "SIGSEGV", LATE)[-1:] != [EndForkServer()]
    submit(scheduler, 2, LATE)
    scheduler.worker_ready(2, LATE)
    scheduler.worker_lost(2, [], "SIGSEGV", LATE)
    assert scheduler.wakes_at() == LATE + IDLE_S
    assert scheduler.tick(LATE + IDLE_S) == [EndForkServer()]


def test_the_time_does_not_run_while_workers_start() -> None:
    scheduler = pool(1, idle_timeout_s=IDLE_S)
    scheduler.warm_up(NOW)
    assert scheduler.wakes_at() is None
    scheduler.worker_ready(1, NOW + 3 * IDLE_S)
    assert scheduler.wakes_at() == NOW + 4 * IDLE_S


def test_min_workers_start_with_the_first_job_and_are_not_ended_by_the_timer() -> None:
    scheduler = pool(3, min_workers=2, idle_timeout_s=IDLE_S)
    assert submit(scheduler, 1) == [StartWorker(1), SendRun(1, 1), StartWorker(2)]
    scheduler.worker_ready(1, NOW)
    scheduler.worker_ready(2, NOW)
    scheduler.run_finished(1, 1, NOW)
    assert scheduler.wakes_at() is None
    assert scheduler.worker_lost(1, [], "SIGKILL", NOW) == [StartWorker(3)]


def test_a_worker_with_its_last_job_has_a_successor_that_waits_for_its_end() -> None:
    scheduler = warm(1, max_runs_per_worker=2)
    submit(scheduler, 1)
    assert scheduler.run_finished(1, 1, LATE) == []
    assert submit(scheduler, 2) == [SendRun(1, 2), StartWorker(2)]
    assert scheduler.worker_ready(2, NOW) == []
    assert submit(scheduler, 3) == []  # only one may run at once
    assert scheduler.run_finished(1, 2, LATE) == [SendRun(2, 3), EndWorker(1)]
    assert scheduler.recycled == 1


def test_a_job_that_is_taken_back_was_not_the_last() -> None:
    scheduler = warm(1, max_runs_per_worker=2)
    scheduler.submit(1, NOW, may_go_ahead=True)
    scheduler.run_finished(1, 1, NOW)
    scheduler.submit(2, NOW, may_go_ahead=True)
    assert scheduler.cancel(2, NOW) == [TakeBack(1)]
    scheduler.taken_back(1, [2], NOW)
    assert scheduler.activity_of(1) == "idle"
    assert submit(scheduler, 3)[0] == SendRun(1, 3)


def test_a_worker_that_has_outgrown_works_on_until_its_successor_has_started() -> None:
    scheduler = warm(1)
    submit(scheduler, 1)
    assert scheduler.run_finished(1, 1, LATE, is_outgrown=True) == [StartWorker(2)]
    assert submit(scheduler, 2) == [SendRun(1, 2)]
    assert scheduler.run_finished(1, 2, LATE, is_outgrown=True) == []  # one is on its way
    assert scheduler.worker_ready(2, LATE) == [EndWorker(1)]
    assert submit(scheduler, 3) == [SendRun(2, 3)]


def test_a_successor_that_dies_while_starting_is_followed_by_another() -> None:
    scheduler = warm(1)
    submit(scheduler, 1)
    assert scheduler.run_finished(1, 1, LATE, is_outgrown=True) == [StartWorker(2)]
    assert scheduler.worker_lost(2, [], "exit 9", LATE) == []
    submit(scheduler, 2)
    assert scheduler.run_finished(1, 2, LATE, is_outgrown=True) == [StartWorker(3)]


@pytest.mark.parametrize("is_running", [False, True])
def test_reload_ends_idle_workers_and_lets_running_jobs_end(is_running: bool) -> None:
    scheduler = warm(2)
    if is_running:
        submit(scheduler, 1)
        actions = scheduler.reload(NOW)
        assert actions == [ReplaceForkServer(), TakeBack(2)]
        actions = scheduler.taken_back(2, [], NOW)
        assert actions == [EndWorker(1), StartWorker(3), StartWorker(4)]
        assert submit(scheduler, 2) == [SendRun(3, 2)]
        assert scheduler.worker_ready(4, NOW) == [TakeBack(3)]  # nobody waits for the slower one
        assert scheduler.taken_back(3, [2], NOW) == [SendRun(4, 2)]
        assert scheduler.run_finished(2, 1, NOW) == [EndWorker(2)]
    else:
        actions = scheduler.reload(NOW)
        assert actions[0] == ReplaceForkServer()
        assert set(actions[1:]) == {EndWorker(1), EndWorker(2), StartWorker(3), StartWorker(4)}


def test_reload_of_a_pool_that_sleeps_does_nothing() -> None:
    scheduler = warm(1)
    scheduler.quiesce(NOW, keeps_fork_server=False)
    scheduler.worker_lost(1, [], "exit 0", NOW)
    assert scheduler.reload(NOW) == []


def test_reload_takes_back_all_jobs_before_it_gives_one_away() -> None:
    scheduler = pool(2)
    submit(scheduler, 1)
    submit(scheduler, 2)
    assert scheduler.reload(NOW) == [ReplaceForkServer(), TakeBack(2), TakeBack(1)]
    assert scheduler.taken_back(2, [2], NOW) == []
    actions = scheduler.taken_back(1, [1], NOW)
    assert [action for action in actions if isinstance(action, SendRun)] == [
        SendRun(3, 1),
        SendRun(4, 2),
    ]


def test_reload_mends_a_broken_pool() -> None:
    scheduler = pool(1)
    submit(scheduler, 1)
    scheduler.broken("no such module")
    scheduler.taken_back(1, [1], NOW)
    assert scheduler.reload(NOW)[0] == ReplaceForkServer()
    assert submit(scheduler, 2) == [StartWorker(2), SendRun(2, 2)]


def test_where_the_machine_has_no_workers_to_give_they_are_not_asked_for_again_and_again() -> None:
    scheduler = warm(2, min_workers=2)
    refused = [action.worker for action in scheduler.reload(NOW) if isinstance(action, StartWorker)]
    assert refused == [3, 4]
    for worker in refused:
        assert scheduler.worker_refused(worker, "no descriptors", NOW) == []
    assert scheduler.worker_lost(1, [], "exit 0", NOW) == [StartWorker(5)]  # what it held is free
    assert scheduler.worker_refused(5, "no descriptors", NOW) == []


def test_a_pool_that_has_slept_keeps_its_workers_as_long_as_before() -> None:
    scheduler = pool(1, idle_timeout_s=IDLE_S)
    assert scheduler.tick(NOW) == []
    assert scheduler.tick(NOW + IDLE_S) == [EndForkServer()]
    later = NOW + 5 * IDLE_S
    assert submit(scheduler, 1, later) == [StartWorker(1), SendRun(1, 1)]
    assert scheduler.worker_ready(1, later) == []
    assert scheduler.run_finished(1, 1, later) == []
    assert scheduler.tick(later + IDLE_S / 2) == []
    assert scheduler.tick(later + IDLE_S) == [EndWorker(1)]


def test_a_warm_up_has_its_time_though_workers_were_idle_for_long() -> None:
    scheduler = pool(2, idle_timeout_s=IDLE_S)
    assert submit(scheduler, 1) == [StartWorker(1), SendRun(1, 1)]
    assert scheduler.worker_ready(1, NOW) == []
    assert scheduler.run_finished(1, 1, NOW) == []
    later = NOW + 5 * IDLE_S  # the timer is late
    assert scheduler.warm_up(later) == [StartWorker(2)]
    assert scheduler.worker_ready(2, later) == []
    assert is_warm(scheduler)
    again = later + 5 * IDLE_S
    assert scheduler.warm_up(again) == []
    assert is_warm(scheduler)
    assert scheduler.tick(again + IDLE_S / 2) == []


def test_no_worker_is_idle_for_too_long_while_others_start() -> None:
    scheduler = pool(2, idle_timeout_s=IDLE_S)
    scheduler.warm_up(NOW)
    scheduler.worker_ready(1, NOW)
    assert scheduler.wakes_at() is None
    assert scheduler.worker_ready(2, NOW + 2 * IDLE_S) == [EndWorker(1)]
    assert is_warm(scheduler)


def test_a_pool_is_partly_ready_from_its_first_worker_on() -> None:
    scheduler = pool(2)
    assert scheduler.readiness is Readiness.NONE
    scheduler.warm_up(NOW)
    scheduler.worker_ready(1, NOW)
    assert scheduler.readiness.name == "SOME"
    scheduler.worker_ready(2, NOW)
    assert scheduler.readiness.name == "ALL"
    scheduler.quiesce(NOW, keeps_fork_server=True)
    assert scheduler.readiness.name == "NONE"


def test_workers_that_are_lost_with_their_fork_server_start_however_long_that_took() -> None:
    scheduler = pool(2, idle_timeout_s=IDLE_S)
    assert scheduler.warm_up(NOW) == [StartWorker(1), StartWorker(2)]
    lost = scheduler.fork_server_lost(
        {1: [], 2: []}, "unsafe", "unsafe", NOW + 2 * IDLE_S, was_leaving=True
    )
    assert lost == [StartWorker(3), StartWorker(4)]
