"""The clients of a supervisor, and what each of them wants."""

from __future__ import annotations

from compilepool.light_typing import TYPE_CHECKING
from compilepool.supervisor.links.client import ClientLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.wire.messages import Level, Message, Readiness, Shutdown, log_message

if TYPE_CHECKING:
    from collections.abc import Iterator


class Client:
    """One client.

    Attributes:
        link: the connection to it.
        runs: the run of each of its unfinished jobs, by its own number of the job.
        log_level: the lowest level of log messages that it wants.
        warm_up: its own number of its last warm-up.
        readiness: the readiness of the workers, as far as it was told.
        shutdown: how it wants to leave; None while it stays.
        lets_sleep: whether it wants the pool to sleep when its jobs have ended.
        keeps_fork_server: whether the fork server is to stay meanwhile.
    """

    def __init__(self, link: ClientLink) -> None:
        self.link = link
        self.runs: dict[int, RunId] = {}
        self.log_level: int = Level.WARNING
        self.warm_up = 0
        self.readiness = Readiness.NONE
        self.shutdown: Shutdown | None = None
        self.lets_sleep = False
        self.keeps_fork_server = False

    def send(self, message: Message) -> None:
        """Queue a message; takes over its descriptors."""
        self.link.send(message)


class Clients:
    """All clients of one supervisor."""

    def __init__(self) -> None:
        self._clients: list[Client] = []

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: Client) -> None:
        """A client has come."""
        self._clients.append(client)

    def remove(self, client: Client) -> None:
        """A client has left."""
        self._clients.remove(client)

    @property
    def let_sleep(self) -> bool:
        """Whether all of them want the pool to sleep."""
        return all(client.lets_sleep for client in self._clients)

    @property
    def keep_fork_server(self) -> bool:
        """Whether one of them wants the fork server to stay meanwhile."""
        return any(client.keeps_fork_server for client in self._clients)

    def log(self, level: Level, source: str, text: str) -> None:
        """Tell those that want to hear it, for the logger of a module of ours."""
        for client in self._clients:
            if level >= client.log_level:
                client.send(log_message(level, source, text))
