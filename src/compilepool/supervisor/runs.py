"""Runs, and the jobs that wait for them.

A *job* is a call that a client has submitted. The client numbers its jobs. A *run* is what a worker
executes for the jobs that wait for it. Jobs with the same *flight* wait for the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from compilepool.light_typing import NamedTuple
from compilepool.supervisor.clients import Client
from compilepool.supervisor.rules.actions import RunId
from compilepool.wire.channel import close_all
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import JobTerms


class Waiter(NamedTuple):
    """A job that waits for a run.

    Attributes:
        client: the client that has submitted the job.
        id: the client's number for the job.
    """

    client: Client
    id: int


class Run:
    """A run that has not ended.

    Attributes:
        name: the name of its first job.
        terms: the terms of its first job.
        payload: the call.
        first: its first job, which may wait no more.
        waiters: the jobs that wait for the run, in the order submitted; empty once nobody wants it.
        attempt: the number of the current attempt; the first is 1.
        is_reported: whether the waiters were told that it has begun.
        log: the end of the output that the waiters were sent, of this attempt or an earlier one;
            None if they were sent none.
    """

    __slots__ = (
        "attempt",
        "first",
        "is_reported",
        "log",
        "name",
        "payload",
        "terms",
        "waiters",
    )

    def __init__(self, name: str, terms: JobTerms, payload: Payload, waiter: Waiter) -> None:
        self.name = name
        self.terms = terms
        self.payload = payload
        self.first = waiter
        self.waiters: tuple[Waiter, ...] = (waiter,)
        self.attempt = 1
        self.is_reported = False
        self.log: bytes | None = None

    @property
    def kind(self) -> str:
        """The key that similar runs share."""
        return self.terms.key or self.name

    def tell(self, kind: Kind, body: bytes = b"") -> None:
        """Send a message to each waiter, under its own number."""
        for client, id in self.waiters:
            client.send(Message(kind, id, body=body))

    def id_for(self, client: Client) -> int:
        """The number of this client's job among the waiters; 0 if there is none."""
        return next((id for each, id in self.waiters if each is client), 0)

    def client_pids(self) -> tuple[int, ...]:
        """The PID of the client of each waiter."""
        return tuple(client.visible_pid for client, _ in self.waiters)


class RunTable:
    """The unfinished runs of one pool.

    Attributes:
        joined: the number of jobs that have joined the run of another job.
        reused: the number of jobs that have got a kept result.
    """

    def __init__(self) -> None:
        self.joined = 0
        self.reused = 0
        self._runs: dict[RunId, Run] = {}
        self._flights: dict[str, RunId] = {}
        self._last_id = 0

    def __contains__(self, id: RunId) -> bool:
        return id in self._runs

    def __getitem__(self, id: RunId) -> Run:
        return self._runs[id]

    def get(self, id: RunId) -> Run | None:
        """The run; None if it has ended."""
        return self._runs.get(id)

    def items(self) -> Iterable[tuple[RunId, Run]]:
        """All runs with their ids, the oldest first."""
        return self._runs.items()

    def in_flight(self, flight: str) -> RunId | None:
        """The run that jobs with this flight share; None if there is none."""
        return self._flights.get(flight)

    def add(self, waiter: Waiter, name: str, terms: JobTerms, payload: Payload) -> RunId:
        """Add a run for a job, and return its id. Takes over the payload."""
        self._last_id += 1
        self._runs[self._last_id] = Run(name, terms, payload, waiter)
        waiter.client.runs[waiter.id] = self._last_id
        if terms.flight:
            self._flights[terms.flight] = self._last_id
        return self._last_id

    def join(self, id: RunId, waiter: Waiter) -> Run:
        """Have one more job wait for a run. Returns the run."""
        run = self._runs[id]
        run.waiters = (*run.waiters, waiter)
        self.joined += 1
        waiter.client.runs[waiter.id] = id
        return run

    def withdraw(self, waiter: Waiter) -> bool:
        """Remove a job from the waiters of its run.

        Returns:
            Whether no waiter is left. Then the run is in flight no more.
        """
        id = waiter.client.runs.pop(waiter.id)
        run = self._runs[id]
        run.waiters = tuple(each for each in run.waiters if each != waiter)
        if run.waiters:
            return False
        self.land(id)
        return True

    def land(self, id: RunId) -> bool:
        """Have no more jobs join a run. Returns whether any could until now."""
        flight = self._runs[id].terms.flight
        if not flight or self._flights.get(flight) != id:
            return False
        del self._flights[flight]
        return True

    def all_in_flight(self) -> list[RunId]:
        """The runs that jobs may join."""
        return list(self._flights.values())

    def end(self, id: RunId) -> Run:
        """Remove a run, which has ended. The caller then tells its waiters."""
        run = self._runs[id]
        if run.terms.flight:
            self.land(id)
        del self._runs[id]
        for client, job in run.waiters:
            del client.runs[job]
        run.payload.close()
        return run


def addressed(message: Message, to: Sequence[tuple[Waiter, int]]) -> list[tuple[Client, Message]]:
    """A message for each of several jobs, under its own number. Takes over the descriptors.

    Args:
        message: the message. If it goes to several jobs, the files of its descriptors must be
            sealed, because they share them.
        to: the jobs, and the flag for each.

    Returns:
        Whom to send what, in the same order.
    """
    kind, _, _, form, body, fds = message
    if not to:
        close_all(fds)
    messages = []
    for number, ((client, id), flag) in enumerate(to, 1):
        own_fds = duplicates(fds) if fds and number < len(to) else fds
        messages.append((client, Message(kind, id, flag, form, body, own_fds)))
    return messages


def send_each(message: Message, to: Sequence[tuple[Waiter, int]]) -> None:
    """Send a message to jobs; see `addressed`."""
    for client, own in addressed(message, to):
        client.send(own)


def duplicates(fds: tuple[int, ...]) -> tuple[int, ...]:
    """Descriptors of the same files; none if there are not enough.

    A message that lacks its descriptor costs only its own job, which ends with an error that says
    so.
    """
    copies: list[int] = []
    try:
        copies += (os.dup(fd) for fd in fds)
    except OSError:
        close_all(copies)
        return ()
    return tuple(copies)
