"""Views of pools, as supervisors send them: whole or broken, each is read or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.observe.counters import Counters
from compilepool.observe.record import JobRecord, note_shared
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import JOINED, OUTCOME_BITS, REUSED, Outcome, ProtocolError
from compilepool.wire.payloads import INLINE_LIMIT, pack_json
from compilepool.wire.pool_view import ClientView, PoolView, WorkerView
from compilepool.wire.visiting import FailedLook, PoolLook, QueuedLook, WorkerLook

NUMBERS = st.integers(0, 1 << 40)
CLIENTS = st.lists(st.builds(ClientView, NUMBERS, st.text(max_size=9), NUMBERS), max_size=3)
WORKER = WorkerView(7, "busy", 3, 1.5, "ptxas", 2.5)
POOL = PoolView((WORKER,), (ClientView(5, "train.py", 2),), "abc", 1, 2, 3, 4, 6, 0.5)
FAILURE = Failure(Cause.CRASH, -11, text="Fatal Python error", native='{"missing": "it"}')
LOOK = PoolLook(
    "abc",
    5,
    1.5,
    600,
    (ClientView(5, "train.py", 2),),
    (WorkerLook(7, "busy", 3, "softmax", 1.5, "ptxas", 2.5, (5, 5)),),
    6,
    queue=(QueuedLook(4, "matmul", (5,)),),
    failures=(FailedLook(1, 3.5, "bad", (5,), FAILURE),),
)

WRONG: list[Any] = [None, "1", {"a": 1}, [1], [[1]], [["a", "b", "c"]], [[1, 2, 3, 4, 5, 6, 7]]]


@given(CLIENTS, st.text(max_size=9), NUMBERS, NUMBERS)
def test_a_view_of_a_pool_arrives(
    clients: list[ClientView], identity: str, joined: int, reused: int
) -> None:
    view = POOL._replace(clients=tuple(clients), identity=identity, joined=joined, reused=reused)
    for limit in (-1, INLINE_LIMIT):
        assert PoolView.of_payload(pack_json(view, inline_limit=limit)) == view


@given(CLIENTS, st.lists(NUMBERS, max_size=3), st.floats(0, 1e9), NUMBERS)
def test_a_look_at_a_pool_arrives(
    clients: list[ClientView], pids: list[int], linger_s: float, joined: int
) -> None:
    workers = (LOOK.workers[0]._replace(clients=tuple(pids)),) * len(pids)
    view = LOOK._replace(clients=tuple(clients), workers=workers, linger_s=linger_s, joined=joined)
    assert PoolLook.of_payload(view.payload()) == view


@pytest.mark.parametrize("field", ["workers", "clients", "joined", "reused", "queued"])
@pytest.mark.parametrize("value", WRONG)
def test_a_broken_view_of_a_pool_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        PoolView.of_payload(pack_json(POOL._replace(**{field: value})))


@pytest.mark.parametrize("field", PoolLook._fields)
@pytest.mark.parametrize("value", [None, {"a": 1}, [None], [[1]], [["a", "b", "c"]]])
def test_a_broken_look_at_a_pool_is_refused(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        PoolLook.of_payload(pack_json({**LOOK._asdict(), field: value}))


@pytest.mark.parametrize("fields", [[], {}, {"identity": "abc"}, {**LOOK._asdict(), "new": 1}])
def test_a_view_of_another_version_is_refused(fields: object) -> None:
    with pytest.raises(ProtocolError):
        PoolLook.of_payload(pack_json(fields))


@pytest.mark.parametrize(
    ("flag", "shared"), [(0, ""), (JOINED, "joined"), (REUSED, "reused"), (0x80, "")]
)
@pytest.mark.parametrize("outcome", Outcome)
def test_a_job_that_got_the_result_of_another_is_counted(
    flag: int, shared: str, outcome: Outcome
) -> None:
    assert (outcome | flag) & OUTCOME_BITS == outcome
    counters, record = Counters(), JobRecord()
    note_shared(record, outcome | flag)
    counters.submitted(1, "job")
    counters.ended(1, "job", record, None, cancelled=False)
    assert record.shared == shared
    assert (counters.joined, counters.reused) == (shared == "joined", shared == "reused")
