"""The log of the pool's processes, and the files with the output of runs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable

from compilepool.supervisor.crew.events import Logged
from compilepool.supervisor.rules.actions import RunId
from compilepool.wire.channel import refuse
from compilepool.wire.messages import Level, Message, read_json

_SOURCE = "compilepool.supervisor.crew.crew"


class CrewLog:
    """The log of one pool's processes. It goes to the clients' logging.

    Args:
        tell: called with each message.
    """

    def __init__(self, tell: Callable[[Logged], None]) -> None:
        self._tell = tell

    def debug(self, text: str) -> None:
        """Log a message of level DEBUG."""
        self._tell(Logged(Level.DEBUG, _SOURCE, text))

    def warn(self, text: str) -> None:
        """Log a message of level WARNING."""
        self._tell(Logged(Level.WARNING, _SOURCE, text))

    def relay(self, message: Message) -> None:
        """Pass on a LOGGED message of a process. Raises `ProtocolError` if it is malformed."""
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
        self._tell(Logged(level, source, f"{text} (pid {message.id})"))


_UNSAFE = r"[^\w.=+-]+"
_NAME_LIMIT = 100  # characters


class LogDir:
    """Writes a file `NAME-SUPERVISOR_PID-RUN_ID.log` for each run that prints anything.

    Args:
        path: the folder, which is made on demand; if empty, nothing is written.
        on_trouble: called once with the reason why output cannot be written.
    """

    def __init__(self, path: str, on_trouble: Callable[[str], None]) -> None:
        self._path = path
        self._on_trouble: Callable[[str], None] | None = on_trouble
        self._files: dict[RunId, int] = {}

    def write(self, run: RunId, name: str, data: bytes) -> None:
        """Append to the file of a run."""
        if not self._path:
            return
        try:
            if run not in self._files:
                self._files[run] = self._open(run, name)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._files[run], rest) :]
        except OSError as error:
            if self._on_trouble is not None:
                self._on_trouble(f"the output of jobs cannot be written to log_dir: {error}")
                self._on_trouble = None

    def end(self, run: RunId) -> None:
        """Close the file of a run, which has ended or will run again."""
        fd = self._files.pop(run, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self, run: RunId, name: str) -> int:
        os.makedirs(self._path, exist_ok=True)
        safe = re.sub(_UNSAFE, "_", name, flags=re.ASCII)[:_NAME_LIMIT].lstrip(".") or "job"
        path = os.path.join(self._path, f"{safe}-{os.getpid()}-{run}.log")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
