"""Serves visitors: those of this user who look at a pool and are no clients of it.

A visitor sends one message, gets one answer, and is gone. Nothing here waits for a visitor: what
its socket does not take at once is dropped.
"""

from __future__ import annotations

import contextlib
import os
import time

from compilepool.supervisor.visited_pool import VisitedPool
from compilepool.wire.channel import Channel, close_all
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Kind, Message
from compilepool.wire.visiting import PoolLook

QUESTIONS = (Kind.LOOK, Kind.DUMP, Kind.CANCEL, Kind.QUIESCE)
"""What a visitor may ask of any pool. A shared one also takes STOP."""


class Visits:
    """Answers visitors."""

    def __init__(self) -> None:
        self._started = time.time()

    def serve(
        self, channel: Channel, message: Message, pool: VisitedPool | None, linger_s: float
    ) -> None:
        """Do what a visitor asks, and answer. Takes over the channel.

        The answer to CANCEL, QUIESCE and STOP is that to LOOK: what the pool is like now.

        Args:
            channel: the connection.
            message: one of `QUESTIONS`, or STOP, which the caller carries out.
            pool: the pool; None if no client has come yet.
            linger_s: the seconds that the supervisor lives without clients.
        """
        kind, id = message.kind, message.id
        if pool is not None and kind is Kind.DUMP:
            pool.dump(channel, id, lambda snapshot: _tell(channel, snapshot))
            return
        seen = 0
        if pool is not None and kind is Kind.CANCEL:
            pool.cancel(id)
        elif pool is not None and kind is Kind.QUIESCE:
            pool.quiesce()
        elif kind is Kind.LOOK:
            seen = id
        look = PoolLook(pid=os.getpid(), started=self._started, linger_s=linger_s)
        if pool is not None:
            look = pool.look(seen, self._started, linger_s)
        fds: tuple[int, ...] = ()
        with contextlib.suppress(OSError):  # it is gone, or there is no descriptor for the answer
            answer = look.payload().message(Kind.LOOKED)
            fds = answer.fds
            fds += (os.pidfd_open(os.getpid()),)
            channel.send(answer._replace(fds=fds), wait=False)
        close_all(fds)
        channel.close()


def _tell(channel: Channel, snapshot: JobSnapshot) -> None:
    answer = snapshot.payload().message(Kind.DUMPED)
    with contextlib.suppress(OSError):
        channel.send(answer, wait=False)
    close_all(answer.fds)
    channel.close()
