"""Which nodes of a cluster are tried when, and what is said of those that are of no use."""

from __future__ import annotations

from typing import cast

import pytest

from compilepool.client.options import PoolOptions
from compilepool.integrations.ray.cluster import Cluster, RayNode
from compilepool.integrations.ray.roster import Roster
from compilepool.integrations.ray.sameness import differences, facts

NODE = RayNode("a" * 56, "host/aaaaaaaa", "10.0.0.1", 4)
OTHER = RayNode("b" * 56, "host/bbbbbbbb", "10.0.0.2", 8)


@pytest.fixture
def roster() -> Roster:
    return Roster(cast(Cluster, None), PoolOptions(None, (), None, (), "fork", None), None, {}, 0.0)


def test_a_node_that_fails_is_tried_again_after_longer_and_longer_pauses(roster: Roster) -> None:
    roster.see([NODE, OTHER])
    assert roster.due([OTHER.id], 1.0) == [NODE]
    pauses, now = [], 1.0
    for _ in range(10):
        roster.is_lost(NODE, "it is gone", now, was_up=False)
        assert roster.due([OTHER.id], now) == []
        pause = next(s / 4 for s in range(1, 1000) if roster.due([OTHER.id], now + s / 4))
        pauses.append(pause)
        now += pause
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    roster.is_up(NODE)
    roster.is_lost(NODE, "it is gone", now, was_up=True)
    assert roster.due([], now + 0.5) == [NODE, OTHER]


def test_nobody_waits_for_nodes_that_fail_again_and_again(roster: Roster) -> None:
    assert roster.hopeless(1000.0) is None  # nobody knows the nodes yet
    roster.see([NODE, OTHER])
    for _ in range(3):
        assert roster.hopeless(0.0) is None
        roster.is_lost(NODE, "no room", 0.0, was_up=False)
    assert roster.hopeless(0.0) is None
    assert not roster.suits(OTHER, {**facts(), "torch": "1.0"})
    error_of = roster.hopeless(0.0)
    assert error_of is not None
    error = error_of("softmax")
    assert str(error).splitlines()[0] == (
        "job 'softmax' was not run, because no node of the Ray cluster can be used:"
    )
    assert error.reasons[NODE.name] == "no room"
    assert error.reasons[OTHER.name].startswith("its torch is 1.0, the program's is ")
    assert error.reasons[OTHER.name] in str(error)


def test_a_cluster_without_nodes_is_hopeless_after_a_while(roster: Roster) -> None:
    roster.see([])
    roster.due([], 1.0)
    assert roster.hopeless(29.0) is None
    error_of = roster.hopeless(31.0)
    assert error_of is not None
    assert "no node" in str(error_of("softmax"))


def test_a_node_that_comes_back_is_a_new_one(roster: Roster) -> None:
    roster.see([NODE])
    assert not roster.suits(NODE, {})
    assert roster.due([], 0.0) == []
    roster.see([])
    roster.see([NODE])
    assert roster.due([], 0.0) == [NODE]


def test_workers_are_the_cpus_that_ray_counts(roster: Roster) -> None:
    assert roster.opening(OTHER)[0].max_workers == 8
    given = Roster(cast(Cluster, None), PoolOptions(3, (), None, (), "fork", None), None, {}, 0.0)
    assert given.opening(OTHER)[0].max_workers == 3


def test_equal_facts_do_not_differ_and_a_missing_one_does() -> None:
    ours = facts()
    assert differences(ours, facts()) == []
    assert {"Python", "compilepool", "machine", "torch", "triton"} <= ours.keys()
    theirs = {name: text for name, text in ours.items() if name != "cloudpickle"}
    [found] = differences(ours, theirs)
    assert found.startswith("its cloudpickle is not installed, the program's is ")
