"""Tells clients why runs have failed, and lets all of them count the crashes of a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compilepool.supervisor.clients import Clients
from compilepool.supervisor.runs import Run, Waiter, send_each
from compilepool.wire.failure import Failure, KeyCrash
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload, pack_json
from compilepool.wire.spares import seal


class CrashNews:
    """What clients hear of runs that have failed.

    Each client itself counts how often in a row the jobs of a key have crashed, and stops
    submitting them. So it must also hear of the crashes of those that others have submitted.

    Args:
        clients: all clients.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._crashed: set[str] = set()
        """The keys whose last run has crashed."""

    def failed(self, run: Run, failure: Failure) -> None:
        """Tell the waiters of a run, which has ended, why it has failed.

        The first of them makes the crash folder. The other clients hear of a crash, too.
        """
        if not run.waiters:
            return
        first, *others = run.waiters
        first.client.send(failure.payload().message(Kind.FAILED, first.id))
        if others:
            self._tell_others(failure, first, others)
        key = run.terms.key
        if key and failure.is_crash and not failure.is_innocent:
            self._crashed.add(key)
            self._tell_strangers(run, Kind.KEY_CRASHED, KeyCrash(key, run.name, failure).payload)

    def died_idle(self, failure: Failure) -> None:
        """Tell all clients of a worker that has died without a job. One makes a crash folder."""
        pid = 0
        for client in self._clients:
            payload = failure._replace(kept_by=pid).payload()
            client.send(payload.message(Kind.DIED_IDLE))
            pid = pid or client.link.pid

    def ran(self, run: Run) -> None:
        """Note that a run has ended and has not crashed."""
        key = run.terms.key
        if key in self._crashed:
            self._crashed.discard(key)
            self._tell_strangers(run, Kind.KEY_RAN, lambda: pack_json(key))

    def _tell_others(self, failure: Failure, first: Waiter, others: Sequence[Waiter]) -> None:
        if failure.is_crash:
            failure = failure._replace(kept_by=first.client.link.pid)
        told = {first.client}
        to = []
        for waiter in others:
            to.append((waiter, int(waiter.client in told)))
            told.add(waiter.client)
        send_each(_shareable(failure.payload(), Kind.FAILED), to)

    def _tell_strangers(self, run: Run, kind: Kind, payload: Callable[[], Payload]) -> None:
        """Tell the clients that did not wait for the run."""
        waiting = {waiter.client for waiter in run.waiters}
        strangers = [client for client in self._clients if client not in waiting]
        if strangers:
            to = [(Waiter(client, 0), 0) for client in strangers]
            send_each(_shareable(payload(), kind), to)


def _shareable(payload: Payload, kind: Kind) -> Message:
    message = payload.message(kind)
    for fd in message.fds:
        seal(fd)
    return message
