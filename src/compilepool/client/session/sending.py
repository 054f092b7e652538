"""Sends calls and other messages to the supervisor."""

from __future__ import annotations

import errno
import functools

from compilepool.client.connection.connection import MAX_HELD, SMALL, SupervisorConnection
from compilepool.client.connection.own_process import own_authkey
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.light_typing import Literal
from compilepool.wire.channel import close_all
from compilepool.wire.messages import Kind, Message, Shutdown
from compilepool.wire.payloads import Payload
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import Env, JobTerms, submit_message

PLENTY_FOR_WORKER = 16
"""How many unfinished jobs for each worker keep the supervisor busy; more of them may wait here."""


class SupervisorLink:
    """The way to the current supervisor. While there is none, or a dead one, nothing is sent.

    Its methods are called under the lock of the calls, except as noted.

    Args:
        calls: the unfinished calls.
        max_workers: how many workers may have jobs at once.

    Attributes:
        supervisor: the current supervisor; None while there is none.
        is_reader_busy: whether the thread that reads from it runs a callback of the user's. Until
            that ends, no message wakes that thread up.
    """

    def __init__(self, calls: UnfinishedCalls, max_workers: int) -> None:
        self._calls = calls
        self._plenty = MAX_HELD + PLENTY_FOR_WORKER * max_workers
        self._authkey = ""
        """What all workers of this supervisor know."""
        self._own_env: Env = ()
        """What names this process in its environment, and the workers do not have."""
        self.supervisor: SupervisorConnection | None = None
        self.is_reader_busy = False
        self.are_workers_terminated = False

    def send(self, message: Message, *, hold: bool = False) -> bool:
        """Send a message. The message's descriptors stay open here.

        Args:
            message: the message.
            hold: whether it may wait for others, see `SupervisorConnection.hold`.

        Returns:
            False if there is no supervisor, or a dead one. The reader notices the death, too, and
            sends the unfinished calls to the next one.

        Raises:
            OSError: as `SupervisorConnection.send`; not if the program has closed our descriptors.
        """
        supervisor = self.supervisor
        if supervisor is None:
            return False
        try:
            return supervisor.hold(message) if hold else supervisor.send(message)
        except OSError as error:
            return _has_lost_descriptors(supervisor, error)

    def send_call(self, id: int, call: Call) -> bool:
        """Send a call, as `send` does. It waits for others if that makes no difference to it."""
        terms = call.terms
        if self._own_env:
            terms = _with_own_env(terms, self._own_env)
        authkey = own_authkey()
        if authkey != self._authkey:
            # Not in the call itself, whose terms may be kept in a file.
            terms = _with_authkey(terms, authkey)
        message = submit_message(id, call.name, call.payload, terms)
        if not message.fds:
            is_small = len(message.body) <= SMALL
            is_sent = self.send(message, hold=is_small and self._may_hold())
            if not self._may_hold():  # the reader may have ended all others meanwhile, and sleep
                self.flush()
            return is_sent
        try:
            return self.send(message)
        finally:
            close_all(set(message.fds) - {call.payload.fd})

    def connect(
        self, supervisor: SupervisorConnection, config: PoolConfig, startup: Payload | None
    ) -> None:
        """Send a new supervisor its first message, and make it the current one.

        Args:
            supervisor: the supervisor.
            config: the pool's configuration.
            startup: what every worker starts with, which stays open; None if nothing.

        Raises:
            OSError: as `SupervisorConnection.send`.
        """
        self._authkey, self._own_env = config.authkey, ()
        payload = config.payload()
        fds: tuple[int, ...] = ()
        try:
            message = payload.message(Kind.CONFIGURE)
            if startup is not None:
                fds = startup.message(Kind.CONFIGURE).fds
            supervisor.send(message._replace(fds=message.fds + fds))
        finally:
            payload.close()
            close_all(fd for fd in fds if startup is not None and fd != startup.fd)
        # Only now: a signal handler may submit meanwhile, and CONFIGURE is first.
        self.supervisor = supervisor

    def share(self, supervisor: SupervisorConnection, own_env: Env) -> None:
        """Make a shared supervisor, which has got the configuration, the current one.

        Args:
            supervisor: the supervisor.
            own_env: the variables of this process that its workers do not have.
        """
        self._authkey, self._own_env = "", own_env
        self.supervisor = supervisor

    def flush(self) -> None:
        """Send the calls that wait for others. Any thread."""
        supervisor = self.supervisor
        if supervisor is None or not supervisor.has_held:
            return
        with self._calls.lock:
            if supervisor is self.supervisor:
                try:
                    supervisor.flush()
                except OSError as error:
                    _has_lost_descriptors(supervisor, error)

    def terminate_workers(self) -> None:
        """Have all workers get SIGTERM, and nothing begin any more. Any thread."""
        with self._calls.lock:
            self.are_workers_terminated = True
            self.send(Message(Kind.SHUTDOWN, flag=Shutdown.TERMINATE))

    def drop(self, patience_s: float) -> None:
        """Kill the supervisor, if there is one, and wait for its end.

        Args:
            patience_s: as `SupervisorConnection.bury` has it.
        """
        supervisor, self.supervisor = self.supervisor, None
        if supervisor is not None:
            supervisor.discard(patience_s)

    def _may_hold(self) -> bool:
        """Whether a call may wait here for others, because it would wait in the supervisor anyway.

        It waits there until a worker has room, which is when another job has ended. That wakes the
        reader up, which flushes, unless it runs a callback of the user's. It might not wait there
        beside calls of other priorities.
        """
        calls = self._calls
        return len(calls) > self._plenty and not calls.with_priority and not self.is_reader_busy


def _with_own_env(terms: JobTerms, own_env: Env) -> JobTerms:
    flight = terms.flight
    if flight:
        from compilepool.client.flights import with_folders

        flight = with_folders(flight, own_env, terms.env)
    return terms._replace(env=own_env + terms.env, flight=flight)


@functools.lru_cache(1)  # most jobs have the same
def _with_authkey(terms: JobTerms, authkey: str) -> JobTerms:
    return terms._replace(authkey=authkey)


def _has_lost_descriptors(supervisor: SupervisorConnection, error: OSError) -> Literal[False]:
    """False if the program has closed our descriptors; any other error is raised."""
    if error.errno not in (errno.EBADF, errno.ENOTSOCK):
        raise error
    # The reader, which waits for these descriptors, does not notice until the supervisor dies.
    # Then it starts another one.
    supervisor.kill()
    return False
