"""The current fork server, and earlier ones that still have workers."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable

from compilepool.light_typing import NamedTuple, TypeAlias
from compilepool.supervisor.fork_server_start import ForkServerStarter
from compilepool.supervisor.links.fork_server import ForkServerLink
from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import handle_each
from compilepool.wire.messages import Message, ProtocolError
from compilepool.wire.pool_config import PoolConfig

_ORDERLY_EXIT_S = 2.0
_SWEEP_S = 0.3
_LAST_GASP_S = 0.3  # a process that fails exits this long after it has closed its socket

OnMessage: TypeAlias = Callable[[ForkServerLink, Message], None]


class Death(NamedTuple):
    """The death of a fork server.

    Attributes:
        exitcode: the exit code, or the negated signal number; None if unknown.
        text: what faulthandler has written about a crash.
    """

    exitcode: int | None
    text: str


class ForkServers:
    """The fork servers of one pool: the current one, if any, and those that are leaving.

    Args:
        loop: the event loop.
        config: the pool's configuration.
        starter: starts fork servers.
        on_message: called with each message of a fork server; may raise `ProtocolError`.
        on_end: called when a fork server has sent its last message; must call `bury`.
        warn: called with each warning for the user.
        spared: returns the PIDs of other children of this process, which `bury` must not kill.

    Attributes:
        current: the fork server that new workers come from; None if there is none.
    """

    def __init__(
        self,
        loop: Loop,
        config: PoolConfig,
        starter: ForkServerStarter,
        on_message: OnMessage,
        on_end: Callable[[ForkServerLink], None],
        warn: Callable[[str], None],
        spared: Callable[[], Iterable[int]],
    ) -> None:
        self._loop = loop
        self._config = self._wanted = config
        self._starter = starter
        self._on_message = on_message
        self._on_end = on_end
        self._warn = warn
        self._spared = spared
        self.current: ForkServerLink | None = None
        self._leaving: list[ForkServerLink] = []

    @property
    def all(self) -> list[ForkServerLink]:
        """All fork servers that are not buried."""
        return [*self._leaving, *([] if self.current is None else [self.current])]

    @property
    def is_outdated(self) -> bool:
        """Whether a file has changed that the current one has loaded a module from."""
        return self.current is not None and any(
            file.has_changed for file in self.current.loaded_files
        )

    @property
    def some_leave(self) -> bool:
        """Whether there are fork servers besides the current one."""
        return bool(self._leaving)

    def of(self, worker: int) -> ForkServerLink:
        """The fork server that a worker comes from. The worker has not been removed."""
        return next(server for server in self.all if worker in server.workers)

    def worker_gone(self, worker: int) -> None:
        """The worker is dead, or could not be started."""
        server = self.of(worker)
        server.workers.remove(worker)
        self.end_if_idle(server)

    def start(self) -> ForkServerLink:
        """Start a fork server, which becomes the current one. Raises OSError if that fails."""
        process = self._starter.start(self._config.python_flags)
        self.current = ForkServerLink(self._loop, self._config, process, self._read)
        return self.current

    def spawn_from_now_on(self) -> None:
        """Have the next fork servers spawn their workers: the current one is unsafe to fork."""
        self._config = self._config._replace(start_method="spawn")

    def replace(self) -> None:
        """Let the current fork server end after its workers, and start another one now."""
        self.let_go()
        self._config = self._wanted  # forking may be safe with the new preload
        with contextlib.suppress(OSError):  # starting the next worker tries again, and reports it
            self.start()

    def note_ready(self, server: ForkServerLink) -> None:
        """The fork server has done the preload."""
        server.is_ready = True
        server.importing = ""
        server.ready_at = time.monotonic()
        self.end_if_idle(server)

    def let_go(self) -> None:
        """Let the current fork server end after its workers."""
        server, self.current = self.current, None
        if server is not None:
            server.is_leaving = True
            self._leaving.append(server)
            self.end_if_idle(server)

    def end_if_idle(self, server: ForkServerLink) -> None:
        """Let a fork server exit if it is leaving and has no worker."""
        if not server.is_leaving or server.is_ending:
            return
        if not server.is_ready:
            server.kill()  # it does not read its socket yet, and no worker of it has started
        elif not server.workers:
            server.end_input()
            self._loop.call_at(time.monotonic() + _ORDERLY_EXIT_S, server.kill)

    def bury(self, server: ForkServerLink) -> Death:
        """Reap a fork server that has ended, and kill what it leaves. Then call `drop`."""
        others = [other.pid for other in self.all if other is not server]
        exitcode, text, survivors = server.bury([*others, *self._spared()], _LAST_GASP_S)
        if survivors:
            self._warn(f"processes {survivors} cannot be killed: jobs have left them")
        return Death(exitcode, text)

    def drop(self, server: ForkServerLink) -> None:
        """Remove a fork server, which is buried."""
        if self.current is server:
            self.current = None
        else:
            self._leaving.remove(server)
        server.close()

    def finish(self, patience_s: float = _SWEEP_S) -> None:
        """Let all fork servers exit with all processes below them.

        Args:
            patience_s: how long to wait for each of them, in seconds.
        """
        for server in self.all:
            if server.is_ready:
                server.finish(patience_s)

    def _read(self, server: ForkServerLink) -> None:
        if server not in self.all:
            return
        is_dead = server.is_dead  # asked before reading, so that no message is missed
        messages: list[Message] | None
        try:
            while messages := server.channel.receive(wait=False):
                handle_each(messages, functools.partial(self._on_message, server))
                if server not in self.all:
                    return
        except ProtocolError as error:
            self._warn(f"the fork server is replaced: it sent nonsense: {error}")
            messages = None
        if messages is None or is_dead:
            self._on_end(server)
