"""One look into a worker, by a process of its own: what looks may crash or hang as well."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from compilepool.supervisor.loop import Loop
from compilepool.wire import kernel
from compilepool.wire.signals import DUMP_SIGNAL
from compilepool.wire.spawn import process_command, spawn

_MODULE = "compilepool.inspector.main"
_LIMIT = 512 * 1024  # bytes of a report; the inspector keeps to less
_READ_SIZE = 1 << 16


def missing(what: str) -> str:
    """The line of a `NativeReport` that says what it lacks."""
    return json.dumps({"missing": what}) + "\n"


class Inspection:
    """An inspector process, and what it finds.

    Args:
        loop: the event loop.
        mode: as `Inspections.start` has it.
        pid: of the worker.
        pidfd: of the worker.
        libdw: path of the library that unwinds stacks.
        deadline: when the inspector is killed, by `time.monotonic()`.
        on_done: called once, with the JSON lines that it wrote, see `wire.native_report`.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        loop: Loop,
        mode: str,
        pid: int,
        pidfd: int,
        libdw: str,
        deadline: float,
        on_done: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._on_done = on_done
        self._found = bytearray()
        self._is_killed = False
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)  # the writer's end is another open file
        try:
            command = process_command(["-I", "-S"], _MODULE)
            dump_signal = int(DUMP_SIGNAL) if mode == "live" else 0
            arguments = [mode, str(pid), str(dump_signal), str(os.getpid()), libdw]
            self.pid = spawn([*command, *arguments], os.environ, [writer, pidfd])
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                kernel.kill_child(self.pid)
                raise
        except OSError:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        self._timer = loop.call_at(deadline, self.kill)
        loop.watch(self._reader, self._on_readable)
        loop.watch(self._pidfd, self._end)

    def kill(self) -> None:
        """End it; `on_done` is still called."""
        self._is_killed = True
        kernel.send_signal(self._pidfd, signal.SIGKILL)

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Take in what there is; False if that is nothing."""
        try:
            data = os.read(self._reader, _READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._loop.forget(self._reader)
        elif len(self._found) < _LIMIT:
            self._found += data
        return bool(data)

    def _end(self) -> None:
        """The inspector is dead."""
        while self._read():
            pass
        self._timer.cancel()
        self._loop.forget(self._reader)
        self._loop.forget(self._pidfd)
        exitcode = kernel.reap(self._pidfd)
        os.close(self._pidfd)
        os.close(self._reader)
        if exitcode != 0 and not self._is_killed:
            # Its last line may be cut.
            lost = missing(f"what is not here: the inspector itself ended with code {exitcode}")
            self._found += b"\n" + lost.encode()
        self._on_done(self._found.decode(errors="replace"))
