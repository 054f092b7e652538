"""The tables of `compilepool top`, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.cli.top import tables
from compilepool.cli.top.command import as_text
from compilepool.cli.top.sight import PoolSight, Used, as_json
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.pool_view import ClientView
from compilepool.wire.visiting import FailedLook, PoolLook, QueuedLook, WorkerLook

PIDS = st.integers(1, 1 << 22)
TIMES = st.floats(0, 1e9)
CLIENTS = st.lists(PIDS, max_size=3).map(tuple)
WORKERS = st.builds(
    WorkerLook, PIDS, st.just("busy"), PIDS, st.text(max_size=90), TIMES, st.text(), TIMES, CLIENTS
)
FAILURES = st.builds(
    FailedLook,
    PIDS,
    st.floats(0, 2e9),
    st.text(),
    CLIENTS,
    st.builds(
        Failure,
        st.sampled_from(Cause),
        st.sampled_from([None, -11, 3]),
        text=st.text(),
        limit=st.floats(0, 1e12),
    ),
)
LOOKS = st.builds(
    PoolLook,
    identity=st.just("abc"),
    started=st.floats(0, 2e9),
    clients=st.lists(st.builds(ClientView, PIDS, st.text(max_size=90), PIDS), max_size=3).map(
        tuple
    ),
    workers=st.lists(WORKERS, max_size=4).map(tuple),
    queue=st.lists(st.builds(QueuedLook, PIDS, st.text(), CLIENTS), max_size=3).map(tuple),
)
POOLS = st.builds(
    PoolSight,
    st.just("/run/compilepool"),
    st.text(min_size=1, max_size=20),
    st.booleans(),
    st.none() | LOOKS,
    now=st.floats(1e9, 2e9),
    used=st.dictionaries(PIDS, st.builds(Used, st.none() | st.floats(0, 99), PIDS), max_size=3),
    failures=st.lists(FAILURES, max_size=2).map(tuple),
)


@given(st.lists(POOLS, max_size=3), st.integers(80, 300))
def test_no_line_is_longer_than_the_terminal_or_has_what_it_cannot_show(
    pools: list[PoolSight], width: int
) -> None:
    for line in as_text(pools, "", width):
        assert len(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("sort", tables.SORTS)
@given(pools=st.lists(POOLS, max_size=3), is_reversed=st.booleans())
def test_what_waits_comes_after_what_runs(
    sort: str, pools: list[PoolSight], is_reversed: bool
) -> None:
    states = [row.cells[1] for row in tables.job_rows(pools, "", sort, is_reversed=is_reversed)]
    assert states == sorted(states)  # "busy" is before "queued"
    assert len(states) == sum(
        len(pool.look.workers) + len(pool.look.queue) for pool in pools if pool.look
    )


@given(st.lists(POOLS, max_size=3))
def test_a_filter_leaves_only_what_concerns_its_clients(pools: list[PoolSight]) -> None:
    for pool in pools:
        for client in () if pool.look is None else pool.look.clients:
            wanted = str(client.pid)
            left = tables.only(pools, wanted)
            assert pool in left
            assert tables.client_rows(left, wanted)
            for row in tables.job_rows(left, wanted):
                assert row.cells[8]
    assert tables.only(pools, "no such client") == []


@given(st.lists(POOLS, max_size=3))
def test_json_has_every_pool(pools: list[PoolSight]) -> None:
    found = as_json(pools)["pools"]
    assert [pool["name"] for pool in found] == [pool.name for pool in pools]
    assert [("workers" in pool) for pool in found] == [pool.look is not None for pool in pools]
