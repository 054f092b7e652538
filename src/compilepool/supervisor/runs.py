"""Runs, and the jobs that wait for them.

A *job* is a call that a client has submitted. The client numbers its jobs. A *run* is what a worker
executes for the jobs that wait for it. Today exactly one job waits for each run.
"""

from __future__ import annotations

import os

from compilepool.light_typing import NamedTuple
from compilepool.supervisor.clients import Client
from compilepool.supervisor.rules.actions import RunId
from compilepool.wire.channel import close_all
from compilepool.wire.messages import Form, Kind, Message
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
        waiters: the jobs that wait for the run; empty once nobody wants it.
        attempt: the number of the current attempt; the first is 1.
        has_output: whether the waiters were sent output, of this attempt or an earlier one.
    """

    __slots__ = ("attempt", "has_output", "name", "payload", "terms", "waiters")

    def __init__(self, name: str, terms: JobTerms, payload: Payload, waiter: Waiter) -> None:
        self.name = name
        self.terms = terms
        self.payload = payload
        self.waiters: tuple[Waiter, ...] = (waiter,)
        self.attempt = 1
        self.has_output = False

    @property
    def kind(self) -> str:
        """The key that similar runs share."""
        return self.terms.key or self.name

    def tell(
        self,
        kind: Kind,
        flag: int = 0,
        form: Form = Form.NONE,
        body: bytes = b"",
        fds: tuple[int, ...] = (),
    ) -> None:
        """Send a message to each waiter, under its own number. Takes over the descriptors."""
        if not self.waiters:
            close_all(fds)
            return
        client, id = self.waiters[0]
        for other, its_id in self.waiters[1:]:
            own_fds = tuple(os.dup(fd) for fd in fds)
            other.send(Message(kind, its_id, flag, form, body, own_fds))
        client.send(Message(kind, id, flag, form, body, fds))

    def id_for(self, client: Client) -> int:
        """The number of this client's job among the waiters; 0 if there is none."""
        return next((id for each, id in self.waiters if each is client), 0)


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
        self._last_id = 0

    def __contains__(self, id: RunId) -> bool:
        return id in self._runs

    def __getitem__(self, id: RunId) -> Run:
        return self._runs[id]

    def get(self, id: RunId) -> Run | None:
        """The run; None if it has ended."""
        return self._runs.get(id)

    def add(self, waiter: Waiter, name: str, terms: JobTerms, payload: Payload) -> RunId:
        """Add a run for a job, and return its id. Takes over the payload."""
        self._last_id += 1
        self._runs[self._last_id] = Run(name, terms, payload, waiter)
        waiter.client.runs[waiter.id] = self._last_id
        return self._last_id

    def withdraw(self, waiter: Waiter) -> bool:
        """Remove a job from the waiters of its run. Returns whether no waiter is left."""
        run = self._runs[waiter.client.runs.pop(waiter.id)]
        run.waiters = tuple(each for each in run.waiters if each != waiter)
        return not run.waiters

    def end(self, id: RunId) -> Run:
        """Remove a run, which has ended. The caller then tells its waiters."""
        run = self._runs.pop(id)
        for client, job in run.waiters:
            del client.runs[job]
        run.payload.close()
        return run
