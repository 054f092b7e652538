"""The supervisor: serves one client, for as long as it wants, or lives."""

from __future__ import annotations

import signal
import sys

from compilepool.linux import pidfds, process
from compilepool.linux.spawn import FIRST_FD
from compilepool.supervisor.crew.fork_server_start import ForkServerStarter
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.pool import Pool
from compilepool.wire.channel import Channel, close_all, handle_each, refuse
from compilepool.wire.messages import Form, Kind, Message, ProtocolError, Shutdown
from compilepool.wire.payloads import lacks_descriptor, of_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import read_submit
from compilepool.wire.usage import NO_USAGE, lost_result


class Supervisor:
    """Has one client, and its pool as soon as the client has told what that is to be."""

    def __init__(self, channel: Channel, client_pidfd: int, starter: ForkServerStarter) -> None:
        self._starter = starter
        _, fd_limit = process.raise_fd_limit()
        self._spill_above_fd = fd_limit // 2
        self._loop = Loop()
        self._client = ClientLink(
            self._loop, channel, client_pidfd, self._read_client, self._client_gone
        )
        self._pool: Pool | None = None
        self._shutdown: Shutdown | None = None

    def run(self) -> None:
        """Serve the client until it wants no more or is gone; then end all that was started."""
        while self._shutdown is not Shutdown.NOW:
            pool = self._pool
            if pool is None:
                self._loop.run_once(None)
            else:
                self._loop.run_once(pool.patience_s(), spin_s=pool.spin_s)
            self._client.flush()  # first: somebody waits for these, and nobody for what follows
            if self._pool is not None:
                self._pool.go_on()
            self._client.flush()
            if self._shutdown is Shutdown.DRAIN and self._is_drained():
                self._say_farewell()
                break
        if self._pool is not None:
            self._pool.end()
        else:
            pidfds.sweep()  # the fork server that was started ahead

    def _is_drained(self) -> bool:
        return self._pool is None or not self._pool.scheduler.unfinished

    def _say_farewell(self) -> None:
        if self._pool is not None:
            self._pool.tell_peek(0)  # the last word for the statistics
        self._client.flush_finally()
        if self._pool is not None:
            self._pool.dismiss()

    def _client_gone(self) -> None:
        self._shutdown = Shutdown.NOW

    def _read_client(self) -> None:
        try:
            messages = self._client.channel.receive(wait=False)
            if messages is None:
                self._client_gone()
            else:
                handle_each(messages, self._handle)
        except ProtocolError as error:
            print(f"compilepool supervisor: dropped its client: {error}", file=sys.stderr)
            self._client_gone()

    def _handle(self, message: Message) -> None:
        kind = message.kind
        pool = self._pool
        if kind is Kind.SUBMIT and pool is not None:
            self._submit(pool, message)
        elif kind is Kind.CONFIGURE and pool is None:
            self._configure(message)
        elif pool is None:
            refuse(message, "before CONFIGURE")
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.CANCEL:
            pool.cancel(message.id)
        elif kind is Kind.CANCEL_QUEUED:
            pool.cancel_queued()
        elif kind is Kind.DUMP:
            pool.dump(message.id)
        elif kind is Kind.WARM_UP:
            pool.warm_up(message.id)
        elif kind is Kind.QUIESCE:
            pool.quiesce(keeps_fork_server=bool(message.flag))
        elif kind is Kind.RELOAD:
            pool.reload()
        elif kind is Kind.PEEK:
            pool.tell_peek(message.id)
        elif kind is Kind.SHUTDOWN:
            self._shutdown = Shutdown.NOW if message.flag else Shutdown.DRAIN
        else:
            refuse(message, "from a client")

    def _configure(self, message: Message) -> None:
        own = 1 if message.form is Form.MEMFD else 0
        startup_fds = message.fds[own:]
        config = PoolConfig.of_payload(of_message(message._replace(fds=message.fds[:own])))
        self._pool = Pool(self._loop, self._client, config, startup_fds, self._starter)

    def _submit(self, pool: Pool, message: Message) -> None:
        id = message.id
        if lacks_descriptor(message):
            self._client.send(lost_result(id, NO_USAGE))
            return
        try:
            name, terms, payload_at = read_submit(message)
        except ProtocolError:
            close_all(message.fds)
            raise
        payload = of_message(message, payload_at)
        if id in self._client.jobs:
            payload.close()  # sent twice, when a signal interrupted the client
            return
        # The kernel hands out the lowest free number: a high one means that many are in use.
        if payload.fd > self._spill_above_fd:
            payload = payload.spill()
        pool.submit(id, name, terms, payload)


def run(client_pidfd: int, starter: ForkServerStarter) -> None:
    """Run the supervisor of this process; see `start`."""
    process.set_process_title("compilepool supervisor", "cp-supervisor")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.become_subreaper()
    Supervisor(Channel.adopt(FIRST_FD), client_pidfd, starter).run()
