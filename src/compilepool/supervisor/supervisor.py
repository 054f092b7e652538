"""The supervisor: serves clients until all of them have left or died."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time

from compilepool.linux import pidfds, process
from compilepool.linux.spawn import FIRST_FD
from compilepool.supervisor.clients import Client, Clients
from compilepool.supervisor.door import Door
from compilepool.supervisor.entrance import Entrance
from compilepool.supervisor.fork_server_start import ForkServerStarter
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.pool import Pool
from compilepool.supervisor.visits import QUESTIONS, Visits
from compilepool.wire.channel import Channel, close_all, close_messages, handle_each, refuse
from compilepool.wire.joining import Joining
from compilepool.wire.messages import Form, Kind, Level, Message, ProtocolError, Shutdown
from compilepool.wire.payloads import lacks_descriptor, of_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.submission import read_submit
from compilepool.wire.usage import NO_USAGE, lost_result

_VISIBLE_AFTER_S = 1.0
"""A private pool that lives longer than this can be looked at. A shorter one costs no file."""

_UNREAD_SHARE = 8
"""Clients may leave this part of the limit of descriptors in flight unread.

It is small, because a client that has stopped keeps what it had when there were fewer clients.
"""


class Supervisor:
    """Serves the clients of one pool, and ends with the last client, unless its door stays open.

    The first CONFIGURE message makes the pool.

    Args:
        starter: starts the fork servers.
    """

    def __init__(self, starter: ForkServerStarter) -> None:
        self._starter = starter
        # The workers and the clients have the first limit, and this process the second one.
        soft_fd_limit, fd_limit = process.raise_fd_limit()
        self._max_unread_fds = soft_fd_limit // _UNREAD_SHARE
        self._spill_above_fd = fd_limit // 2
        self._loop = Loop()
        self._clients = Clients()
        self._pool: Pool | None = None
        self._door: Door | None = None
        self._visits = Visits()
        self._entrance: Entrance | None = None

    def add_client(self, channel: Channel, pidfd: int) -> Client:
        """Serve one more client. Takes over the channel and the client's pidfd."""
        link = ClientLink(self._loop, channel, pidfd)
        client = Client(link)
        link.watch(
            functools.partial(self._read, client), functools.partial(self._note_gone, client)
        )
        self._clients.add(client)
        return client

    def open_door(self, name: str, listener: int, lock: int, directory: int, first: int) -> None:
        """Serve clients that come by themselves, too. For the arguments, see `Door`."""
        self._door = Door(
            self._loop,
            self._clients,
            name,
            listener,
            lock,
            directory,
            first,
            self._join,
            self._visit,
        )

    def run(self) -> None:
        """Serve until no client is left and none can come, then end all processes of the pool."""
        if self._door is None:
            self._loop.call_at(time.monotonic() + _VISIBLE_AFTER_S, self._open_entrance)
        while not self._is_over:
            pool = self._pool
            if pool is None:
                self._loop.run_once(None)
            else:
                self._loop.run_once(pool.patience_s(), spin_s=pool.spin_s)
            self._flush()  # clients wait for these messages, but nobody waits for `go_on`
            self._go_on()
            while self._some_leave() and not self._is_over:
                self._go_on()  # their jobs are not wanted any more
        if self._entrance is not None:
            self._entrance.close()
        if self._pool is None:
            pidfds.sweep()  # the fork server that was started ahead
            return
        self._pool.end()

    @property
    def _is_over(self) -> bool:
        return not (self._clients or (self._door is not None and self._door.is_open))

    def _go_on(self) -> None:
        if self._pool is not None:
            self._pool.go_on()
        self._flush()

    def _some_leave(self) -> bool:
        """Remove the clients that want to leave and may. Returns whether there are any."""
        before = len(self._clients)
        for client in [each for each in self._clients if each.shutdown is not None]:
            self._let_go(client)
        return len(self._clients) < before

    def _let_go(self, client: Client) -> None:
        """Remove a client that wants to leave, if it may leave yet."""
        is_end = len(self._clients) == 1 and (self._door is None or not self._door.lingers)
        if client.shutdown is Shutdown.DRAIN:
            if not self._is_drained(client) or not self._has_got_all(client):
                return
            if is_end:
                self._shut_door()
                if self._pool is not None:
                    self._pool.dismiss()  # the client hears how the last workers end
                client.link.flush_finally()
        self._clients.remove(client)
        client.link.forget()
        if is_end:
            self._shut_door()
            return  # the link stays open until this process exits
        if self._pool is not None:
            self._pool.leave(client)
        client.link.close()
        if not self._clients and self._door is not None:
            self._door.last_client_left()

    def _has_got_all(self, client: Client) -> bool:
        """Whether a client that leaves has got all that was queued for it; else it gets it now."""
        if self._pool is not None and not client.knows_statistics:
            client.knows_statistics = True
            self._pool.tell_view(client, 0)  # the final statistics
        if self._door is None:
            return True  # nobody else waits while `flush_finally` does
        client.link.flush()
        return not client.link.has_unsent

    def _is_drained(self, client: Client) -> bool:
        if self._pool is None:
            return True
        # The last client also waits for unwanted runs, which are being ended.
        return not client.runs and (len(self._clients) > 1 or self._pool.has_ended_all)

    def _join(self, channel: Channel, joining: Joining, pidfd: int, configure: Message) -> None:
        if self._pool is not None and not self._pool.renew():
            # This client starts another supervisor. Those that this one has go on as before.
            self._shut_door()
            close_all([*configure.fds, pidfd])
            channel.close()
            return
        client = self.add_client(channel, pidfd)
        client.pid, client.name, client.log_level = joining.pid, joining.name, joining.log_level
        client.cpus, client.counts_cpus = joining.cpus, joining.counts_cpus
        try:
            self._configure(client, configure)
        except (ProtocolError, OSError) as error:  # OSError: too many open files
            self._drop(client, error)

    def _visit(self, channel: Channel, message: Message) -> None:
        """Answer somebody who is no client of the pool, and end the pool if that is wanted."""
        pool = None if self._pool is None else self._pool.visited
        linger_s = 0.0 if self._door is None else self._door.linger_s
        self._visits.serve(channel, message, pool, linger_s)
        if message.kind is Kind.STOP:
            self._shut_door()
            for client in self._clients:
                client.shutdown = Shutdown.NOW

    def _open_entrance(self) -> None:
        """Let visitors look at this private pool, if there is a place for that."""
        from compilepool.wire.meeting_place import NoMeetingPlace

        try:
            self._entrance = Entrance.of_private_pool(self._loop, self._read_visitor)
        except (OSError, NoMeetingPlace) as error:
            text = f"`compilepool top` does not see into this pool: {error}"
            self._clients.log(Level.DEBUG, __name__, text)
            return
        if self._entrance is None:
            self._loop.call_at(time.monotonic() + _VISIBLE_AFTER_S, self._open_entrance)

    def _read_visitor(self, channel: Channel, messages: list[Message]) -> None:
        if len(messages) == 1 and messages[0].kind in QUESTIONS and not messages[0].fds:
            self._visit(channel, messages[0])
        else:
            close_messages(messages)
            channel.close()

    def _shut_door(self) -> None:
        if self._door is not None:
            self._door.shut()

    def _flush(self) -> None:
        if self._door is None:
            for client in self._clients:
                client.link.flush()
            return
        max_unread_fds = self._max_unread_fds // (len(self._clients) or 1)
        for client in self._clients:
            client.link.limit(max_unread_fds, self._spill_above_fd // 2)
            client.link.flush()
            if client.link.is_behind:
                # It is stopped. When it goes on, it finds the end of its connection, and comes
                # again; its jobs run again, or their results were kept.
                self._note_gone(client)

    def _note_gone(self, client: Client) -> None:
        client.shutdown = Shutdown.NOW

    def _read(self, client: Client) -> None:
        try:
            messages = client.link.channel.receive(wait=False)
        except ProtocolError as error:
            self._drop(client, error)
            return
        if messages is None:
            self._note_gone(client)
        else:
            self._handle_all(client, messages)

    def _handle_all(self, client: Client, messages: list[Message]) -> None:
        try:
            handle_each(messages, functools.partial(self._handle, client))
        except ProtocolError as error:
            self._drop(client, error)

    def _drop(self, client: Client, error: ProtocolError | OSError) -> None:
        print(f"compilepool supervisor: dropped its client: {error}", file=sys.stderr)
        self._note_gone(client)

    def _handle(self, client: Client, message: Message) -> None:
        kind = message.kind
        pool = self._pool
        if kind is Kind.SUBMIT and pool is not None:
            self._submit(client, pool, message)
        elif kind is Kind.CONFIGURE and pool is None:
            self._configure(client, message)
        elif pool is None:
            refuse(message, "before CONFIGURE")
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.CANCEL:
            pool.jobs.cancel(client, message.id)
        elif kind is Kind.CANCEL_QUEUED:
            pool.jobs.cancel_queued(client)
        elif kind is Kind.DUMP:
            pool.dump(client, message.id)
        elif kind is Kind.WARM_UP:
            pool.warm_up(client, message.id)
        elif kind is Kind.QUIESCE:
            pool.quiesce(client, keeps_fork_server=bool(message.flag))
        elif kind is Kind.RELOAD:
            pool.reload()
        elif kind is Kind.VIEW:
            pool.tell_view(client, message.id)
        elif kind is Kind.SHUTDOWN:
            client.is_terminated |= message.flag == Shutdown.TERMINATE
            client.shutdown = Shutdown.NOW if message.flag == Shutdown.NOW else Shutdown.DRAIN
        else:
            refuse(message, "from a client")

    def _configure(self, client: Client, message: Message) -> None:
        own = 1 if message.form is Form.MEMFD else 0
        startup_fds = message.fds[own:]
        config = PoolConfig.of_payload(of_message(message._replace(fds=message.fds[:own])))
        if self._pool is None:
            self._pool = Pool(self._loop, self._clients, config, startup_fds, self._starter)
        else:
            close_all(startup_fds)  # the same as those of the first client
        if self._door is None:
            client.log_level = config.log_level
            client.send(Message(Kind.CONFIGURED))
            return
        pidfd = os.pidfd_open(os.getpid())
        client.send(Message(Kind.CONFIGURED, os.getpid(), fds=(pidfd,)))
        client.link.flush()  # alone in its packet: its reader is another one than that of the rest
        self._pool.greet(client)
        self._pool.widen()

    def _submit(self, client: Client, pool: Pool, message: Message) -> None:
        id = message.id
        if lacks_descriptor(message):
            client.send(lost_result(id, NO_USAGE))
            return
        try:
            name, terms, payload_at = read_submit(message)
        except ProtocolError:
            close_all(message.fds)
            raise
        payload = of_message(message, payload_at)
        if id in client.runs:
            payload.close()  # a signal interrupted the client, which has sent the job again
            return
        # The kernel hands out the lowest free number, so a high one means that many are in use.
        if payload.fd > self._spill_above_fd:
            payload = payload.spill()
        pool.submit(client, id, name, terms, payload)


def run(client_pidfd: int, starter: ForkServerStarter) -> None:
    """Run the supervisor of this process; see `start`."""
    supervisor = _prepare(starter)
    supervisor.add_client(Channel.adopt(FIRST_FD), client_pidfd)
    supervisor.run()


def run_shared(
    name: str, listener: int, lock: int, directory: int, first: int, starter: ForkServerStarter
) -> None:
    """Run the supervisor of this process for all clients that come; see `start_shared`."""
    supervisor = _prepare(starter)
    supervisor.open_door(name, listener, lock, directory, first)
    supervisor.run()


def _prepare(starter: ForkServerStarter) -> Supervisor:
    process.set_process_title("compilepool supervisor", "cp-supervisor")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.become_subreaper()
    return Supervisor(starter)
