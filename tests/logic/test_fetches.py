"""Large results come from the nodes one after the other, within a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from compilepool.integrations.ray.fetches import Fetches
from compilepool.integrations.ray.messages import EndedJob

BOUND = 100


@given(st.lists(st.integers(1, 250), max_size=30), st.randoms())
def test_all_come_and_never_more_than_the_bound(sizes: list[int], random: object) -> None:
    fetches = Fetches(BOUND)
    for id, size in enumerate(sizes):
        fetches.add("node", EndedJob(id, [], "", "", size=size))
    on_their_way: list[EndedJob] = []
    came = []
    while True:
        on_their_way += [ended for _, ended in fetches.next()]
        assert len(on_their_way) <= 1 or sum(each.size for each in on_their_way) <= BOUND
        if not on_their_way:
            break
        ended = on_their_way.pop(random.randrange(len(on_their_way)))  # type: ignore[attr-defined]
        came.append(ended.id)
        fetches.done(ended)
    assert sorted(came) == list(range(len(sizes)))
