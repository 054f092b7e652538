"""Several clients, whose jobs share runs, while everything happens to the workers at random."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from compilepool.supervisor.clients import Client, Clients
from compilepool.supervisor.crash_news import CrashNews
from compilepool.supervisor.jobs import Jobs
from compilepool.supervisor.kept_results import KeptResults
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.rules.staffing import StaffingPolicy
from compilepool.supervisor.runs import RunTable
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import JOINED, OUTCOME_BITS, REUSED, Form, Kind, Message, Outcome
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import JobTerms
from compilepool.wire.usage import NO_USAGE, read_usage, result_message
from tests.logic.test_scheduler_at_random import ROUNDS, Pool

ENDS = (Kind.RESULT, Kind.FAILED, Kind.CANCELLED)
KEPT = 4  # results, about
CAUSES = {"crash": Cause.CRASH, "start": Cause.START}


class Link:
    """One client's: notes what the client is told, and checks that it may be."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.is_open = True
        self.flights: dict[int, str] = {}  # of all its jobs
        self.ended: dict[int, Message] = {}
        self.started: set[int] = set()
        self.logs: dict[int, bytes] = {}
        self.news: list[Kind] = []

    def send(self, message: Message) -> None:
        assert self.is_open, "the client is dead"
        kind, id = message.kind, message.id
        if kind in (Kind.KEY_CRASHED, Kind.KEY_RAN):
            self.news.append(kind)
            return
        assert id in self.flights, "nobody has submitted it"
        assert id not in self.ended, "it has ended"
        if kind is Kind.STARTED:
            self.started.add(id)
        elif kind is Kind.LOG:
            self.logs[id] = message.body
        else:
            assert kind in ENDS
            self.ended[id] = message


class SharedPool(Pool):
    """What the scheduler calls jobs are runs here."""

    def reset(self, max_workers: int, policy: StaffingPolicy) -> None:
        super().reset(max_workers, policy)
        self.table = RunTable()
        self.everybody = Clients()
        self.members: list[Client] = []
        self.gone: list[Link] = []
        self.flights: dict[int, str] = {}  # by run
        self.epochs: dict[int, int] = {}  # how often the pool was reloaded before a run began
        self.epoch = 0
        self.ran: set[int] = set()
        news = CrashNews(self.everybody)
        self.jobs = Jobs(self.table, self.scheduler, KeptResults(KEPT * 1100, KEPT), news)
        for _ in range(3):
            self.come()

    def link(self, client: Client) -> Link:
        return cast(Link, client.link)

    # What clients do

    @rule()
    def come(self) -> None:
        if len(self.members) < 4:
            client = Client(cast(ClientLink, Link(100 + len(self.members) + len(self.gone))))
            self.everybody.add(client)
            self.members.append(client)

    @precondition(lambda self: self.members)
    @rule(pick=st.integers(0, 3))
    def leave(self, pick: int) -> None:
        """As when it dies."""
        client = self.members.pop(pick % len(self.members))
        self.everybody.remove(client)
        for run in set(client.runs.values()):
            if all(waiter.client is client for waiter in self.table[run].waiters):
                self.note_unwanted(run)
        self.jobs.cancel_all(client)
        assert not client.runs
        self.link(client).is_open = False
        self.gone.append(self.link(client))
        self.perform()

    @rule(
        may_go_ahead=st.booleans(),
        count=st.integers(1, 4),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        retries=st.sampled_from([0, 0, 1, 2]),
        expected=st.sampled_from([0, 0, 1, 5]),
        client=st.sampled_from([0, 0, 1, 2]),
        flight=st.sampled_from(["", "", "a", "b", "c"]),
    )
    def submit(
        self,
        may_go_ahead: bool,
        count: int,
        priority: int,
        retries: int,
        expected: int,
        client: int,
        flight: str = "",
    ) -> None:
        if not self.members:
            self.come()
        for number in range(client, client + count):
            member = self.members[number % len(self.members)]
            terms = JobTerms(priority=priority, retries=retries, flight=flight, key=flight)
            payload = Payload(Form.INLINE, bytes(1 if may_go_ahead else 9000))
            self.submit_one(member, terms, payload, expected)
        self.perform()

    def submit_one(self, member: Client, terms: JobTerms, payload: Payload, expected: int) -> None:
        link = self.link(member)
        id = len(link.flights) + 1
        link.flights[id] = terms.flight
        unfinished = set(self.may_go_ahead) - set(self.ends)
        self.jobs.submit(member, id, "job", terms, payload)
        if id in link.ended:  # a result that was kept
            assert link.ended[id].flag == Outcome.RETURNED | REUSED
            self.check_result(link, id)
            assert self.epochs[self.run_of(link, id)] == self.epoch
            return
        run = member.runs[id]
        if run in unfinished:
            assert terms.flight == self.flights[run] != ""
            assert run not in self.cancelled
            self.note_joined(run, member.number, terms.priority)
            assert link.logs.get(id) == self.table[run].log
            if any(process.running == run for process in self.processes.values()):
                assert self.epochs[run] == self.epoch, "it began before the reload"
            return
        may_go_ahead = len(payload.body) < 9000
        assert run == self.note_submitted(
            may_go_ahead, terms.priority, terms.retries, expected, member.number
        )
        self.flights[run] = terms.flight

    @precondition(lambda self: self.table.all_in_flight() and self.members)
    @rule(pick=st.integers(0, 9), client=st.integers(0, 2), priority=st.sampled_from([0, 0, 1]))
    def join(self, pick: int, client: int, priority: int) -> None:
        runs = self.table.all_in_flight()
        terms = JobTerms(priority=priority, flight=self.flights[runs[pick % len(runs)]])
        member = self.members[client % len(self.members)]
        self.submit_one(member, terms, Payload(Form.INLINE), 0)
        self.perform()

    @precondition(lambda self: self.members and len(self.may_go_ahead) < 40)
    @rule(client=st.integers(0, 2), is_reloaded=st.booleans())
    def join_what_has_run_for_long(self, client: int, is_reloaded: bool) -> None:
        self.submit(False, 1, 0, 0, 0, client, "long")
        for _ in range(4):
            for pick, worker in enumerate(self.alive()):
                if self.processes[worker].running is None:
                    self.go_on(pick, steps=1)
            self.hear_all()
        self.pass_time(10.0)
        self.tick()
        if is_reloaded:
            self.reload()
        self.submit(False, 1, 0, 0, 0, client + 1, "long")

    @precondition(lambda self: any(client.runs for client in self.members))
    @rule(pick=st.integers(0, 30))
    def cancel(self, pick: int) -> None:
        """A job, whose run others may want."""
        wanted = [(client, id) for client in self.members for id in client.runs]
        client, id = wanted[pick % len(wanted)]
        run = client.runs[id]
        is_last = len(self.table[run].waiters) == 1
        if is_last:
            self.note_unwanted(run)
        self.jobs.cancel(client, id)
        assert (run in self.table.all_in_flight()) <= (not is_last)
        self.perform()

    def cancel_job(self, job: int) -> None:
        """All jobs that want a run."""
        for client, id in self.table[job].waiters:
            self.jobs.cancel(client, id)
        self.note_unwanted(job)

    def note_unwanted(self, run: int) -> None:
        self.cancelled.add(run)
        self.overtaken.clear()

    @rule()
    def cancel_queued(self) -> None:
        if self.members:
            client = self.members[0]
            for run in set(client.runs.values()):
                waiters = self.table[run].waiters
                is_own = all(waiter.client is client for waiter in waiters)
                if is_own and self.scheduler.waits(run):
                    self.note_unwanted(run)
            self.jobs.cancel_queued(client)
            assert not any(self.scheduler.waits(run) for run in client.runs.values())
            self.perform()

    def begin_reload(self) -> None:
        super().begin_reload()
        self.epoch += 1
        self.jobs.renew()

    # What becomes of runs

    def begin(self, process: Any, job: int) -> None:
        super().begin(process, job)
        self.epochs[job] = self.epoch

    def note_begun(self, worker: int, job: int) -> None:
        super().note_begun(worker, job)
        self.jobs.begun(job)

    @precondition(lambda self: self.jobs_at_workers())
    @rule(pick=st.integers(0, 5))
    def put_out(self, pick: int) -> None:
        job = self.choose(pick, sorted(self.jobs_at_workers()))
        assert job is not None
        self.jobs.put_out(job, b"output of %d" % job)

    def end(self, job: int, how: str) -> None:
        super().end(job, how)
        waiters = self.table[job].waiters
        assert (how == "cancelled") <= (not waiters)
        if how == "result":
            outcome = Outcome.RAISED if job % 5 == 0 else Outcome.RETURNED
            payload = Payload(Form.INLINE, b"%d" % job)
            result = result_message(job, outcome, payload, NO_USAGE)
            self.jobs.make_shareable(job, result)
            self.jobs.ended(job, result)
        elif how == "cancelled":
            self.jobs.forget(job)
        elif how == "broken":
            payload = Payload(Form.INLINE, b"%d" % job)
            result = result_message(job, Outcome.RAISED, payload, NO_USAGE)
            self.jobs.could_not_begin(job, result)
        else:
            self.jobs.failed(job, Failure(CAUSES.get(how, Cause.FORK_SERVER), -6))
            self.check_failure(waiters)
        for index, (client, id) in enumerate(waiters):
            message = self.link(client).ended[id]
            if message.kind is Kind.RESULT:
                self.check_result(self.link(client), id)
                assert bool(message.flag & JOINED) >= bool(index)

    def check_failure(self, waiters: Any) -> None:
        """One client keeps the folder, and each counts the crash once."""
        messages = [self.link(client).ended[id] for client, id in waiters]
        failures = [Failure.of_message(message) for message in messages]
        assert [failure.kept_by for failure in failures[:1]] == [0] * bool(failures)
        if failures and failures[0].is_crash:
            keeper = self.link(waiters[0].client).pid
            assert all(failure.kept_by == keeper for failure in failures[1:])
        counts = Counter(
            waiter.client.number
            for waiter, message in zip(waiters, messages, strict=True)
            if not message.flag
        )
        assert counts == dict.fromkeys((waiter.client.number for waiter in waiters), 1)

    def run_of(self, link: Link, id: int) -> int:
        """Which run's result a job has got."""
        message = link.ended[id]
        return int(message.body[read_usage(message)[1] :])

    def check_result(self, link: Link, id: int) -> None:
        assert self.flights[self.run_of(link, id)] == link.flights[id]
        assert link.ended[id].flag & OUTCOME_BITS in (Outcome.RETURNED, Outcome.RAISED)

    # What holds at any time

    @invariant()
    def every_job_of_a_client_waits_or_has_ended(self) -> None:
        for client in self.members:
            link = self.link(client)
            assert set(client.runs) | set(link.ended) == set(link.flights)
            assert not set(client.runs) & set(link.ended)

    @invariant()
    def every_waiter_waits_for_a_run_that_is_wanted(self) -> None:
        waiters = Counter(
            (client.number, id, run) for client in self.members for id, run in client.runs.items()
        )
        begun = {run for _, run in self.reported}
        for run in set(self.may_go_ahead) - set(self.ends):
            known = self.table[run]
            assert bool(known.waiters) == (run not in self.cancelled)
            for client, id in known.waiters:
                waiters[client.number, id, run] -= 1
                assert (id in self.link(client).started) == (run in begun)
                assert self.link(client).logs.get(id) == known.log
        assert not any(waiters.values())

    @invariant()
    def what_may_be_joined_is_wanted(self) -> None:
        for run in self.table.all_in_flight():
            assert self.table[run].waiters
            assert run not in self.ends

    # The end

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "scheduler"):
            assert not any(client.runs for client in self.members)
            for client in self.members:
                assert set(self.link(client).ended) == set(self.link(client).flights)
            assert not self.table.all_in_flight()


SharedPool.TestCase.settings = settings(max_examples=ROUNDS, stateful_step_count=50)
TestSharedPool = SharedPool.TestCase
