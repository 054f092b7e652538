"""The router of a pool over several nodes, by property: whatever happens, in whatever order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from compilepool.integrations.ray.router import Router

BOUND = 100
FLIGHTS = ("a", "b")
"""The keys whose jobs share runs."""


class Cluster(RuleBasedStateMachine):
    """Nodes come and go, jobs are submitted, arrive and end. Checks what must always hold."""

    nodes: Bundle[str] = Bundle("nodes")

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(runs_again=1, bound=BOUND)
        self.workers: dict[str, int] = {}
        self.jobs: dict[int, tuple[int, str, int]] = {}
        self.at: dict[int, str] = {}
        self.on_the_way: dict[int, int] = {}
        self.losses: Counter[int] = Counter()
        self.number = 0
        self.node_number = 0

    @rule(target=nodes, workers=st.integers(1, 4), memory=st.integers(0, 50))
    def join(self, workers: int, memory: int) -> str:
        self.node_number += 1
        name = f"node {self.node_number}"
        self.workers[name] = workers
        self.router.join(name, workers, memory)
        self.act()
        return name

    @rule(name=consumes(nodes))
    def leave(self, name: str) -> None:
        had = {id for id, node in self.at.items() if node == name}
        self.losses.update(had)
        again, ended = self.router.leave(name)
        del self.workers[name]
        assert set(again) | set(ended) == had
        assert all(self.losses[id] == 1 for id in again)
        assert all(self.losses[id] == 2 for id in ended)
        for id in had:
            del self.at[id]
            self.on_the_way.pop(id, None)
        for id in ended:
            del self.jobs[id]
        self.act()

    @rule(
        sizes=st.lists(st.integers(0, 150), min_size=1, max_size=6),
        key=st.sampled_from(["", "", "a", "b", "c"]),
        priority=st.integers(-1, 1),
        memory=st.integers(0, 30),
    )
    def submit(self, sizes: list[int], key: str, priority: int, memory: int) -> None:
        for size in sizes:
            self.number += 1
            self.jobs[self.number] = size, key, priority
            self.router.submit(
                self.number,
                size=size,
                memory=memory,
                priority=priority,
                key=key,
                flight=key if key in FLIGHTS else "",
            )
        self.act()

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        if self.on_the_way:
            id = data.draw(st.sampled_from(sorted(self.on_the_way)))
            del self.on_the_way[id]
            self.router.arrived(id)
            self.act()

    @rule(data=st.data(), seconds=st.sampled_from([None, 0.001, 0.1, 10.0]))
    def end(self, data: st.DataObject, seconds: float | None) -> None:
        """Also of jobs that wait: they are cancelled."""
        if self.jobs:
            id = data.draw(st.sampled_from(sorted(self.jobs)))
            del self.jobs[id]
            self.at.pop(id, None)
            self.on_the_way.pop(id, None)
            self.router.ended(id, seconds)
            self.router.ended(id, seconds)  # of no effect
            self.act()

    def act(self) -> None:
        for node, id in self.router.next_gifts():
            assert node in self.workers, "a node that is gone"
            assert id in self.jobs, "a job that has ended"
            assert id not in self.at, "a job that another node has"
            size, key, _ = self.jobs[id]
            others = {at for each, at in self.at.items() if self.jobs[each][1] == key}
            assert not key or others <= {node}, "two nodes with jobs of one key"
            joins = any(self.jobs[each][1] == key and key in FLIGHTS for each in self.at)
            self.at[id] = node
            self.on_the_way[id] = size
            others_size = sum(self.on_the_way.values()) - size
            assert others_size == 0 or others_size + size <= BOUND
            assert joins or self.load(node) <= self.workers[node] * (1 + self.router.ahead)

    def load(self, node: str) -> int:
        keys = {id: self.jobs[id][1] for id, at in self.at.items() if at == node}
        return len({key if key in FLIGHTS else id for id, key in keys.items()})

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """If a job waits, no node that it could go to has a free worker."""
        assert self.router.waiting == len(self.jobs) - len(self.at)
        assert self.router.in_flight == sum(self.on_the_way.values())
        free = {node for node in self.workers if self.load(node) < self.workers[node]}
        for id, (_, key, _) in self.jobs.items():
            if id in self.at or self.router.in_flight:  # the bound may hold it back
                continue
            owner = self.router.owner_of(key) if key else None
            assert owner is None or owner in self.workers, "somebody waits for the dead"
            assert not (free if owner is None else free & {owner}), "a job and a worker wait"


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_jobs_go_by_priority_and_then_in_their_order(priorities: list[int]) -> None:
    router = Router()
    for id, priority in enumerate(priorities):
        router.submit(id, priority=priority)
    router.join("node", 1)
    order = []
    while gifts := router.next_gifts():
        [(_, id)] = gifts
        order.append(id)
        router.ended(id)
    assert order == sorted(range(len(priorities)), key=lambda id: (-priorities[id], id))


@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 60))
def test_equal_nodes_get_equal_shares(nodes: int, workers: int, jobs: int) -> None:
    router = Router()
    for number in range(nodes):
        router.join(f"node {number}", workers)
    for id in range(jobs):
        router.submit(id)
    shares = Counter(node for node, _ in router.next_gifts())
    counts = [shares[f"node {number}"] for number in range(nodes)]
    assert sum(counts) == min(jobs, nodes * workers)
    assert max(counts) - min(counts) <= 1


def test_a_job_goes_where_its_memory_is() -> None:
    router = Router()
    router.join("small", 4, memory=10)
    router.join("large", 4, memory=100)
    for id in range(3):
        router.submit(id, memory=30)
    assert [node for node, _ in router.next_gifts()] == ["large"] * 3
    router.told_memory("small", 40)
    router.submit(3, memory=30)
    assert router.next_gifts()[0].node == "small"


def test_two_programs_choose_the_same_owner_for_a_key() -> None:
    routers = [Router(), Router()]
    for number in range(50):
        for router in routers:
            router.join(f"node {number}", 2)
    for router in routers:
        for id in range(20):
            router.submit(id, key=f"kernel {id}")
    one, two = ({job: node for node, job in router.next_gifts()} for router in routers)
    assert one == two
    routers[0].leave(one[7])
    routers[0].submit(20, key="kernel 7")
    assert routers[0].owner_of("kernel 7") is None  # until its job is given out
    routers[0].next_gifts()
    assert routers[0].owner_of("kernel 7") not in (None, one[7])


def test_jobs_go_ahead_only_if_they_are_short() -> None:
    router = Router()
    router.join("node", 2)
    for id in range(200):
        router.submit(id)
    assert len(router.next_gifts()) == 2
    router.ended(0, 1.0)
    assert len(router.next_gifts()) == 1
    for id in range(1, 200):
        if id in router.jobs_of("node"):
            router.ended(id, 0.001)
            router.next_gifts()
    assert len(router.jobs_of("node")) > 0 or router.waiting == 0
    assert router.ahead > 4


def test_keys_without_jobs_are_forgotten_in_the_end() -> None:
    router = Router()
    router.join("node", 1)
    most = 1 << 16
    for id in range(most + 10):
        router.submit(id, key=f"key {id}")
        router.next_gifts()
        router.ended(id)
    assert router.owner_of("key 0") is None
    assert router.owner_of(f"key {most}") == "node"
