"""What the processes below the supervisor have to say, and what is said of them."""

from __future__ import annotations

from compilepool.supervisor.listener import Listener
from compilepool.wire.channel import refuse
from compilepool.wire.messages import Level, Message, read_json

_SOURCE = "compilepool.supervisor.crew"


class CrewLog:
    """The log of one pool's processes. It ends up in the client's logging.

    Args:
        listener: who passes it on.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def debug(self, text: str) -> None:
        """Somebody might want to know."""
        self._listener.log(Level.DEBUG, _SOURCE, text)

    def warn(self, text: str) -> None:
        """The user should know."""
        self._listener.log(Level.WARNING, _SOURCE, text)

    def relay(self, message: Message, pid: int) -> None:
        """A process below has something to say, by LOGGED. Raises `ProtocolError`."""
        body = read_json(message.body)
        try:
            level = Level(message.flag)
        except ValueError:
            refuse(message, "of an unknown level")
        source, text = body.get("source"), body.get("text")
        if not isinstance(source, str) or not source.startswith("compilepool."):
            refuse(message, "of no module of ours")
        if not isinstance(text, str):
            refuse(message, "without text")
        self._listener.log(level, source, f"{text} (pid {pid})")
