"""Which answer of the supervisor's a dump takes for its own."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from compilepool import CompileFuture, CompilePool, JobDump
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.questions import Dumps
from compilepool.client.session.threads import PoolThreads
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Form, Kind, Message
from compilepool.wire.payloads import Payload
from tests.proc import PATIENCE_S

JOB = 1


class Asker:
    """Dumps of one job; the test is the supervisor."""

    def __init__(self) -> None:
        self.calls = UnfinishedCalls()
        self.future: CompileFuture[Any] = CompileFuture(name="softmax")
        self.calls.add(JOB, "softmax", Payload(Form.INLINE), self.future)
        self.asked: queue.Queue[Message] = queue.Queue()
        self.dumps = Dumps(self.calls, self.asked.put, PoolThreads())
        self.results: queue.Queue[JobDump] = queue.Queue()

    def start(self) -> None:
        """Have a thread dump the job; returns when the supervisor is asked."""

        def dump() -> None:
            self.results.put(self.dumps.dump(self.future, PATIENCE_S))

        threading.Thread(target=dump).start()
        self.next_question()

    def give_up(self) -> None:
        """Dump the job, and do not wait."""
        with pytest.raises(TimeoutError, match="nothing was heard of job 'softmax'"):
            self.dumps.dump(self.future, 0)
        self.next_question()

    def next_question(self) -> None:
        assert self.asked.get(timeout=PATIENCE_S) == Message(Kind.DUMP, JOB)

    def tell(self, phase: str) -> None:
        self.dumps.told(JOB, JobSnapshot("running", phase=phase))

    def phase(self) -> str:
        return self.results.get(timeout=PATIENCE_S).phase


def test_an_answer_that_came_too_late_is_not_the_next_ones() -> None:
    asker = Asker()
    asker.give_up()
    asker.start()
    asker.tell("old")
    asker.next_question()
    asker.tell("new")
    assert asker.phase() == "new"
    asker.start()
    asker.tell("newer")
    assert asker.phase() == "newer"


def test_who_gives_up_leaves_the_answer_to_the_others() -> None:
    asker = Asker()
    asker.start()
    asker.give_up()
    asker.tell("told")
    assert asker.phase() == "told"


def test_a_late_answer_that_nobody_waits_for_is_ignored() -> None:
    asker = Asker()
    asker.give_up()
    asker.tell("old")
    asker.start()
    asker.tell("new")
    assert asker.phase() == "new"


def test_that_a_job_has_ended_is_true_however_late() -> None:
    asker = Asker()
    asker.give_up()
    asker.start()
    asker.dumps.told(JOB, JobSnapshot("ended"))
    assert asker.results.get(timeout=PATIENCE_S).state == "ended"


@pytest.mark.parametrize("thing", [object(), [], None])
def test_what_is_no_future_is_refused(thing: Any) -> None:
    with (
        CompilePool(1) as pool,
        pytest.raises(ValueError, match="this future is of no job of this pool"),
    ):
        pool.dump(thing)
