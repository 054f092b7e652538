"""Clients take turns in the queue."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.supervisor.rules.queue import Queue
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.wire.messages import Readiness
from tests.logic.schedulers import LATE, NOW, Settling

CLIENTS = range(1, 5)
RUNS = st.integers(0, 99)


class Line:
    """A queue of runs of one priority, and what each client may expect of it."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.runs: dict[int, list[int]] = {client: [] for client in CLIENTS}
        self.overtaken: dict[int, Counter[int]] = {client: Counter() for client in CLIENTS}
        self.last_id = 0

    def put(self, client: int) -> int:
        self.last_id += 1
        if not self.runs[client]:
            self.overtaken[client].clear()
        self.runs[client].append(self.last_id)
        self.queue.put(self.last_id, 0, client)
        return self.last_id

    def take(self) -> int:
        first = self.queue.first()
        id = self.queue.take()
        assert id == first
        (client,) = (client for client, runs in self.runs.items() if id in runs)
        assert self.runs[client].pop(0) == id, "the runs of a client keep their order"
        self.overtaken[client].clear()
        for other in CLIENTS:
            if other != client and self.runs[other]:
                self.overtaken[other][client] += 1
                assert self.overtaken[other][client] == 1, "it was not this client's turn"
        return client

    def remove(self, pick: int) -> None:
        runs = [(client, id) for client, ids in self.runs.items() for id in ids]
        client, id = runs[pick % len(runs)]
        self.runs[client].remove(id)
        self.queue.remove(id, 0, [client])

    def __bool__(self) -> bool:
        some_wait = any(self.runs.values())
        assert bool(self.queue) == some_wait
        return some_wait


@given(st.lists(st.tuples(st.sampled_from("ppptr"), RUNS), max_size=120))
def test_nobody_has_two_turns_while_another_client_waits(
    steps: list[tuple[str, int]],
) -> None:
    line = Line()
    for what, pick in steps:
        if what == "p":
            line.put(CLIENTS[pick % len(CLIENTS)])
        elif line and what == "t":
            line.take()
        elif line:
            line.remove(pick)
    while line:
        line.take()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.data())
def test_a_run_that_is_put_first_is_the_first(clients: list[int], data: st.DataObject) -> None:
    line = Line()
    owners = {line.put(client): client for client in clients}
    taken = [line.queue.take() for _ in range(data.draw(st.integers(1, len(clients))))]
    for id in reversed(taken):
        line.queue.put_first(id, 0, owners[id])
        assert line.queue.first() == id
    rest = [line.queue.take() for _ in clients]
    assert sorted(rest) == sorted(owners)
    for client in CLIENTS:
        own = [id for id in rest if owners[id] == client]
        assert own == sorted(own)
    assert not line.queue


def test_runs_that_are_taken_back_do_not_have_the_turns_of_others() -> None:
    queue = Queue()
    for id in range(10, 15):
        queue.put(id, 0, 1)
    taken = [queue.take() for _ in range(3)]
    queue.put(20, 0, 2)
    for id in reversed(taken):
        queue.put_first(id, 0, 1)
    assert [queue.take() for _ in range(6)] == [10, 20, 11, 12, 13, 14]


def test_a_client_that_comes_waits_for_one_run_of_a_client_that_has_queued_thousands() -> None:
    scheduler = Settling(1)
    for run in range(1, 5001):
        scheduler.submit(run, NOW, may_go_ahead=False, client=1)
    scheduler.worker_ready(1, NOW)
    scheduler.submit(5001, NOW, may_go_ahead=False, client=2)
    scheduler.run_finished(1, 1, LATE)
    assert scheduler.runs_of(1) == [5001]
    scheduler.run_finished(1, 5001, LATE)
    assert scheduler.runs_of(1) == [2]


def test_a_higher_priority_comes_before_any_turn() -> None:
    queue = Queue()
    queue.put(1, 0, 1)
    queue.put(2, 1, 2)
    queue.put(3, 1, 2)
    queue.put(4, -1, 3)
    assert [queue.take() for _ in range(4)] == [2, 3, 1, 4]


def scheduler_with_queued(*clients: int) -> Settling:
    """Its only worker runs a job of client 9. Runs 1, 2, ... of these clients wait."""
    scheduler = Settling(1)
    scheduler.submit(100, NOW, may_go_ahead=False, client=9)
    scheduler.worker_ready(1, NOW)
    for run, client in enumerate(clients, 1):
        scheduler.submit(run, NOW, may_go_ahead=False, client=client)
    return scheduler


def order(scheduler: Settling) -> list[int]:
    """The waiting runs, in the order in which the only worker gets them."""
    runs = []
    while scheduler.unfinished:
        (run,) = scheduler.runs_of(1)
        runs.append(run)
        scheduler.run_finished(1, run, LATE)
    return runs[1:]


def test_a_run_that_two_clients_want_starts_when_either_has_its_turn() -> None:
    scheduler = scheduler_with_queued(1, 1, 1, 1)
    scheduler.join(3, client=2)
    assert order(scheduler) == [1, 3, 2, 4]


def test_a_job_with_a_higher_priority_raises_that_of_the_run_that_it_joins() -> None:
    scheduler = scheduler_with_queued(1, 1, 1)
    scheduler.join(3, client=2, priority=1)
    scheduler.join(2, client=2, priority=-1)
    assert order(scheduler) == [3, 1, 2]


def test_a_run_whose_priority_is_raised_starts_at_the_turn_of_any_of_its_clients() -> None:
    scheduler = scheduler_with_queued(1)
    scheduler.submit(4, NOW, may_go_ahead=False, client=3, priority=1)
    scheduler.submit(5, NOW, may_go_ahead=False, client=3, priority=1)
    scheduler.join(1, client=3, priority=1)
    assert order(scheduler) == [4, 1, 5]


def test_a_run_that_several_clients_want_ends_once_when_all_runs_fail() -> None:
    scheduler: Scheduler[str] = Scheduler(1)
    scheduler.submit(1, may_go_ahead=False, client=1)
    scheduler.join(1, client=2)
    scheduler.join(1, client=3)
    scheduler.broken("broken")
    reports = [action for action in scheduler.next_actions(NOW) if "run" in action._fields]
    assert len(reports) == 1
    assert not scheduler.unfinished


def test_a_run_that_several_clients_want_can_be_cancelled() -> None:
    scheduler = scheduler_with_queued(1, 2)
    scheduler.join(1, client=2)
    scheduler.cancel(1, NOW)
    assert order(scheduler) == [2]


def test_a_pool_may_have_more_workers_when_a_client_brings_cpus() -> None:
    scheduler = scheduler_with_queued(1, 2, 3)
    scheduler.raise_limit(3)
    scheduler.tick(LATE)
    assert [scheduler.runs_of(worker) for worker in (1, 2, 3)] == [[100], [1], [2]]
    scheduler.worker_ready(2, LATE)
    scheduler.worker_ready(3, LATE)
    scheduler.raise_limit(1)
    scheduler.run_finished(1, 100, LATE)
    assert scheduler.runs_of(1) == [3]


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_warm_pool_that_may_have_more_workers_starts_them(is_warm: bool) -> None:
    scheduler = Settling(1)
    if is_warm:
        scheduler.warm_up(NOW)
        scheduler.worker_ready(1, NOW)
        assert scheduler.readiness is Readiness.ALL
    scheduler.raise_limit(2)
    started = scheduler.tick(NOW)
    assert len(started) == is_warm
    assert scheduler.readiness is (Readiness.SOME if is_warm else Readiness.NONE)
