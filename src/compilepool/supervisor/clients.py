"""The clients of a supervisor, and the requests that each of them has open."""

from __future__ import annotations

from compilepool.light_typing import TYPE_CHECKING
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.wire.messages import Level, Message, Readiness, Shutdown, log_message
from compilepool.wire.pool_view import ClientView

if TYPE_CHECKING:
    from collections.abc import Iterator


class Client:
    """One client.

    Attributes:
        number: the client's number; no other client of the supervisor ever has it.
        link: the connection to the client.
        runs: the run for each unfinished job of the client, by the client's number for the job.
        log_level: the lowest level of log messages that the client wants.
        warm_up_id: the client's number for its last warm-up.
        readiness: the readiness of the workers that the client was last told.
        shutdown: how the client wants to leave; None while it stays.
        lets_sleep: whether the client lets the pool sleep once no job is left.
        keeps_fork_server: whether the client wants the fork server to stay while the pool sleeps.
        is_terminated: whether the client's jobs are to end by SIGTERM.
        knows_statistics: whether the client, which leaves, was told the final statistics.
        pid: the client's PID; 0 if it is the only one.
        name: the client's name, for people.
        cpus: the CPUs that the client may use; empty if it is the only one.
        counts_cpus: whether the number of workers follows from the CPUs of all clients.
        max_queued: the largest number of the client's jobs that have waited at once, if the pool is
            shared.
    """

    def __init__(self, link: ClientLink) -> None:
        self.number = 0
        self.link = link
        self.runs: dict[int, RunId] = {}
        self.log_level: int = Level.WARNING
        self.warm_up_id = 0
        self.readiness = Readiness.NONE
        self.shutdown: Shutdown | None = None
        self.lets_sleep = False
        self.keeps_fork_server = False
        self.is_terminated = False
        self.knows_statistics = False
        self.pid = 0
        self.name = ""
        self.cpus: tuple[int, ...] = ()
        self.counts_cpus = False
        self.max_queued = 0

    @property
    def visible_pid(self) -> int:
        """The client's PID, for those who look at the pool."""
        return self.pid or self.link.pid

    def send(self, message: Message) -> None:
        """Queue a message. Takes over its descriptors."""
        self.link.send(message)


class Clients:
    """All clients of one supervisor.

    Attributes:
        identity: what the clients of a shared pool have in common; empty before the first one has
            come, and if the pool is private.
    """

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self.identity = ""
        self._last_number = 0

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: Client) -> None:
        """Add a client, which has connected, and number it."""
        self._last_number += 1
        client.number = self._last_number
        self._clients.append(client)

    def remove(self, client: Client) -> None:
        """Remove a client, which has left."""
        self._clients.remove(client)

    @property
    def let_sleep(self) -> bool:
        """Whether all clients let the pool sleep."""
        return all(client.lets_sleep for client in self._clients)

    @property
    def keep_fork_server(self) -> bool:
        """Whether the fork server is to stay while the pool sleeps.

        A client wants that, or the pool waits for the next client.
        """
        wishes = [client.keeps_fork_server for client in self._clients]
        return any(wishes) or not wishes

    @property
    def cpus(self) -> set[int]:
        """The CPUs that any client may use, if the pool may use those."""
        return {cpu for client in self._clients for cpu in client.cpus}

    @property
    def count_cpus(self) -> bool:
        """Whether the number of workers follows from the CPUs of all clients."""
        return any(client.counts_cpus for client in self._clients)

    def views(self) -> tuple[ClientView, ...]:
        """The clients of a shared pool, for people; empty if the pool is private."""
        if not self.identity:
            return ()
        return tuple(ClientView(each.pid, each.name, len(each.runs)) for each in self._clients)

    def log(self, level: Level, source: str, text: str) -> None:
        """Send a log message to the clients that want its level.

        Args:
            level: the level.
            source: the name of the logger.
            text: the message.
        """
        for client in self._clients:
            if level >= client.log_level:
                client.send(log_message(level, source, text))
