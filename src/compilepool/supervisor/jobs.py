"""The jobs of the clients: has each wait for a run, and tells it what becomes of that run."""

from __future__ import annotations

from compilepool.light_typing import Any
from compilepool.supervisor.clients import Client
from compilepool.supervisor.crash_news import CrashNews
from compilepool.supervisor.endings import Endings
from compilepool.supervisor.kept_results import KeptResults
from compilepool.supervisor.rules.actions import RunId
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import Run, RunTable, Waiter, addressed, send_each
from compilepool.wire.channel import refuse
from compilepool.wire.failure import Failure
from compilepool.wire.messages import JOINED, OUTCOME_BITS, Kind, Message, Outcome
from compilepool.wire.payloads import Payload
from compilepool.wire.spares import seal
from compilepool.wire.submission import JobTerms, settings_as_json

_AHEAD_LIMIT = 8 * 1024  # bytes; so the runs that wait in a worker's socket always fit its buffer


class Jobs:
    """The unfinished jobs of all clients.

    A job with a flight shares the run of others with the same flight. If such a run has returned
    already, and its result is kept, the job gets that.

    Args:
        runs: the unfinished runs.
        scheduler: the rules.
        kept: the results of runs that have ended.
        news: tells clients of crashes.

    Attributes:
        endings: how runs have ended.
    """

    def __init__(
        self, runs: RunTable, scheduler: Scheduler[Any], kept: KeptResults, news: CrashNews
    ) -> None:
        self._runs = runs
        self._scheduler = scheduler
        self._kept = kept
        self._news = news
        self.endings = Endings()

    # Requests of clients

    def submit(self, client: Client, id: int, name: str, terms: JobTerms, payload: Payload) -> None:
        """Have a client's job, whose number is not in use, wait for a run. Takes over the payload.

        A result that is kept is sent at once.
        """
        waiter = Waiter(client, id)
        if terms.flight and self._kept.answer(waiter, terms.flight):
            self._runs.reused += 1
            payload.close()
            return
        client.lets_sleep = False
        if terms.flight and self._join(waiter, terms):
            payload.close()
            return
        run = self._runs.add(waiter, name, terms, payload)
        size = len(payload.body) + len(settings_as_json(terms))
        self._scheduler.submit(
            run,
            may_go_ahead=size <= _AHEAD_LIMIT and payload.is_inline,
            priority=terms.priority,
            retries=terms.retries,
            client=client.number,
        )

    def cancel(self, client: Client, id: int) -> None:
        """Cancel a client's job, unless it has ended. Its run goes on if others wait for it."""
        run = client.runs.get(id)
        if run is None:
            return
        is_unwanted = self._runs.withdraw(Waiter(client, id))
        client.send(Message(Kind.CANCELLED, id))
        if is_unwanted:
            self._scheduler.cancel(run)

    def cancel_queued(self, client: Client) -> None:
        """Cancel those jobs of a client whose runs no worker has."""
        for id, run in list(client.runs.items()):
            if self._scheduler.waits(run):
                self.cancel(client, id)

    def cancel_all(self, client: Client) -> None:
        """Cancel all jobs of a client."""
        for id in list(client.runs):
            self.cancel(client, id)

    def renew(self) -> None:
        """The preload is replaced. Later jobs get nothing that has been run with the old one."""
        self._kept.clear()
        for id in self._runs.all_in_flight():
            if not self._scheduler.waits(id):
                self._runs.land(id)

    # What becomes of runs

    def begun(self, id: RunId) -> Run:
        """Tell the waiters of a run that it has begun. Returns the run."""
        run = self._runs[id]
        run.is_reported = True
        run.tell(Kind.STARTED)
        return run

    def put_out(self, id: RunId, tail: bytes) -> None:
        """Send the waiters of a run, unless it has ended, the end of its output."""
        run = self._runs.get(id)
        if run is not None:
            run.log = tail
            run.tell(Kind.LOG, tail)

    def make_shareable(self, id: RunId, result: Message) -> None:
        """Seal the result of a run if more than one process is going to read it.

        Raises:
            ProtocolError: it cannot be sealed, and several jobs wait for it. Its descriptors are
                closed.
        """
        if not result.fds:
            return
        run = self._runs[id]
        if not run.terms.flight:
            return
        try:
            seal(result.fds[0])
        except OSError as error:
            if len(run.waiters) > 1:
                refuse(result, f"that several jobs wait for and that cannot be sealed: {error}")
            self._runs.land(id)  # so it is not kept

    def ended(self, id: RunId, result: Message) -> None:
        """Send the result of a run, which has ended, to its waiters. Takes over its descriptors.

        `make_shareable` was called for the result.
        """
        flight = self._runs[id].terms.flight
        was_in_flight = flight and self._runs.in_flight(flight) == id
        run = self._runs.end(id)
        outcome = result.flag & OUTCOME_BITS
        self.endings.by_outcome[outcome] += 1
        # If there are not enough descriptors, those who wait come first.
        messages = addressed(result, _flags(run, outcome))
        if was_in_flight and outcome == Outcome.RETURNED:
            self._kept.keep(flight, result, run.log)
        self._news.ran(run)
        for client, message in messages:
            client.send(message)

    def could_not_begin(self, id: RunId, result: Message) -> None:
        """Send the waiters of a run, which no worker could begin, a RESULT that says why."""
        run = self._runs.end(id)
        send_each(result, _flags(run, result.flag))

    def failed(self, id: RunId, failure: Failure) -> None:
        """Tell the waiters of a run, which has ended, why it has failed."""
        run = self._runs.end(id)
        self.endings.note_failure(run, failure)
        self._news.failed(run, failure)

    def forget(self, id: RunId) -> None:
        """Drop a run, which has ended and for which no job waits."""
        self._runs.end(id)

    def _join(self, waiter: Waiter, terms: JobTerms) -> bool:
        """Have a job wait for the run of its flight. Returns False if there is none."""
        client, id = waiter
        run_id = self._runs.in_flight(terms.flight)
        if run_id is None:
            return False
        if not self._scheduler.join(run_id, client=client.number, priority=terms.priority):
            return False
        run = self._runs.join(run_id, waiter)
        if run.log is not None:
            client.send(Message(Kind.LOG, id, body=run.log))
        if run.is_reported:
            client.send(Message(Kind.STARTED, id))
        return True


def _flags(run: Run, outcome: int) -> list[tuple[Waiter, int]]:
    """The flag of RESULT for each waiter."""
    joined = outcome | JOINED
    return [(waiter, outcome if waiter == run.first else joined) for waiter in run.waiters]
