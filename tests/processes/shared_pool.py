"""A pool of several clients, all of which the test plays."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from compilepool.client.connection.setup import PoolSetup
from compilepool.client.options import PoolOptions
from compilepool.client.session.outcomes import resolve
from compilepool.client.session.packing import pack_call
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.failure import Failure
from compilepool.wire.messages import OUTCOME_BITS, Kind, Message
from compilepool.wire.payloads import of_message
from compilepool.wire.submission import JobTerms, submit_message
from compilepool.wire.usage import Usage, read_usage
from tests.proc import PATIENCE_S

CHATTER = (Kind.LOGGED, Kind.WARMTH, Kind.IDLE_MEMORY)


class Client:
    """One client. Its jobs have numbers of its own.

    Args:
        channel: its socket.
        stand_in: the process whose life is this client's.
    """

    supervisor = 0
    """The supervisor's PID."""

    def __init__(self, channel: Channel, stand_in: subprocess.Popen[bytes]) -> None:
        self.channel = channel
        self.stand_in = stand_in
        self.last_id = 0
        self._heard: list[Message] = []

    def submit(
        self, function: Callable[..., Any], *args: Any, flight: str = "", **terms: Any
    ) -> int:
        self.last_id += 1
        payload = pack_call("job", function, args, {}, None)
        job_terms = JobTerms(flight=flight, **terms)
        self.channel.send(submit_message(self.last_id, "job", payload, job_terms))
        payload.close()
        return self.last_id

    def cancel(self, id: int) -> None:
        self.channel.send(Message(Kind.CANCEL, id))

    def hear(self) -> Message:
        """The next message, which says more than how the workers are."""
        while not self._heard:
            assert select.select([self.channel], [], [], PATIENCE_S)[0], "nothing is heard"
            messages = self.channel.receive()
            assert messages is not None, "the supervisor is gone"
            self._heard += [message for message in messages if message.kind not in CHATTER]
        return self._heard.pop(0)

    def hears(self, kind: Kind, id: int) -> Message:
        """The next message, which is of this kind, but for what jobs tell while they run."""
        while (message := self.hear()).kind in (Kind.STARTED, Kind.LOG) and message.kind != kind:
            pass
        assert (message.kind, message.id) == (kind, id), message
        return message

    def is_heard(self) -> None:
        """Wait until the supervisor has handled what this client has sent."""
        self.channel.send(Message(Kind.VIEW))
        close_messages([self.hears(Kind.VIEWED, 0)])

    def result(self, id: int) -> tuple[Any, int, Usage]:
        """What the job has returned or raised; the flag of its RESULT; what it has used."""
        message = self.hears(Kind.RESULT, id)
        usage, at = read_usage(message)
        outcome = message.flag & OUTCOME_BITS
        value, error = resolve(outcome, of_message(message, at), "job", None)
        return error or value, message.flag & ~OUTCOME_BITS, usage

    def failure(self, id: int) -> tuple[Failure, int]:
        """Why the job has failed, and the flag of its FAILED."""
        message = self.hears(Kind.FAILED, id)
        return Failure.of_message(message), message.flag

    def die(self) -> None:
        self.stand_in.kill()
        self.stand_in.wait()

    def close(self) -> None:
        close_messages(self._heard)
        self.channel.close()
        self.die()


@contextmanager
def shared_pool(count: int = 2, max_workers: int = 1, **options: Any) -> Iterator[list[Client]]:
    """The clients of a pool."""
    clients: list[Client] = []
    fds: list[int] = []
    try:
        for _ in range(count):
            channel, theirs = Channel.pair()
            stand_in = subprocess.Popen(["sleep", "600"])
            clients.append(Client(channel, stand_in))
            fds += [theirs.detach(), os.pidfd_open(stand_in.pid)]
        command = [sys.executable, "-m", "tests.programs.shared_supervisor", *map(str, fds)]
        supervisor = subprocess.Popen(command, pass_fds=fds)
    finally:
        for fd in fds:
            os.close(fd)
    try:
        choices = PoolOptions(max_workers, [], None, (), "fork", None, **options)
        setup = PoolSetup(choices)
        for client in clients:
            client.supervisor = supervisor.pid
        clients[0].channel.send(setup.config.payload().message(Kind.CONFIGURE))
        clients[0].hears(Kind.CONFIGURED, 0)
        yield clients
    finally:
        for client in clients:
            client.close()
        assert supervisor.wait(PATIENCE_S) == 0
