"""What the pool's processes have to say, and the files with the output of jobs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable

from compilepool.supervisor.crew.listener import Listener
from compilepool.wire.channel import refuse
from compilepool.wire.messages import Level, Message, read_json

_SOURCE = "compilepool.supervisor.crew.crew"


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


_UNSAFE = re.compile(r"[^\w.=+-]+", re.ASCII)
_NAME_LIMIT = 100  # characters


class LogDir:
    """Writes to a file for each job that writes anything, `NAME-SUPERVISOR_PID-NUMBER.log`.

    Args:
        path: the folder; made if it is not there. Empty: nothing is written.
        name_of: tells the name of a job; None if it has ended.
        on_trouble: called, once, with the reason why output could not be written.
    """

    def __init__(
        self,
        path: str,
        name_of: Callable[[int], str | None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._path = path
        self._name_of = name_of
        self._on_trouble: Callable[[str], None] | None = on_trouble
        self._files: dict[int, int] = {}

    def write(self, job: int, data: bytes) -> None:
        """Add to the output of a job. What it writes when it has ended is dropped."""
        name = self._name_of(job) if self._path else None
        if name is None:
            return
        try:
            if job not in self._files:
                self._files[job] = self._open(job, name)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._files[job], rest) :]
        except OSError as error:
            if self._on_trouble is not None:
                self._on_trouble(f"the output of jobs cannot be written to log_dir: {error}")
                self._on_trouble = None

    def end(self, job: int) -> None:
        """The job has ended."""
        fd = self._files.pop(job, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self, job: int, name: str) -> int:
        os.makedirs(self._path, exist_ok=True)
        safe = _UNSAFE.sub("_", name)[:_NAME_LIMIT].lstrip(".") or "job"
        path = os.path.join(self._path, f"{safe}-{os.getpid()}-{job}.log")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
