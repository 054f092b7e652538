"""Inspects workers by inspector processes: a few at a time, each with its own time limit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable

from compilepool.light_typing import Literal, NamedTuple, TypeAlias
from compilepool.linux import pidfds
from compilepool.linux.signals import DUMP_SIGNAL
from compilepool.linux.spawn import process_command, spawn
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink

_MODULE = "compilepool.inspector.main"
_LIMIT = 512 * 1024  # bytes of a report; the inspector keeps to less
_READ_SIZE = 1 << 16


def missing(what: str) -> str:
    """The line of a `NativeReport` that says what the report lacks."""
    return json.dumps({"missing": what}) + "\n"


class Inspection:
    """One inspector process, and what it finds.

    Args:
        loop: the event loop.
        mode: the mode, see `Inspections.start`.
        pid: the worker's PID.
        pidfd: the worker's pidfd.
        libdw: the path of the library that unwinds stacks.
        deadline: the time at which the inspector is killed, by `time.monotonic()`.
        on_done: called once, with the JSON lines that the inspector wrote, see
            `wire.native_report`.

    Raises:
        OSError: the inspector could not be started.
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
        os.set_blocking(self._reader, False)  # the write end is another open file
        try:
            command = process_command(["-I", "-S"], _MODULE)
            dump_signal = int(DUMP_SIGNAL) if mode == "live" else 0
            arguments = [mode, str(pid), str(dump_signal), str(os.getpid()), libdw]
            self.pid = spawn([*command, *arguments], os.environ, [writer, pidfd])
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                pidfds.kill_child(self.pid)
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
        """Kill the inspector. `on_done` is still called."""
        self._is_killed = True
        pidfds.send_signal(self._pidfd, signal.SIGKILL)

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read what is in the pipe. Returns False if there is nothing."""
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
        """The inspector is dead: collect what it wrote, and call `on_done`."""
        while self._read():
            pass
        self._timer.cancel()
        self._loop.forget(self._reader)
        self._loop.forget(self._pidfd)
        exitcode = pidfds.reap(self._pidfd)
        os.close(self._pidfd)
        os.close(self._reader)
        if exitcode != 0 and not self._is_killed:
            # The last line may be cut.
            lost = missing(f"what is not here: the inspector itself ended with code {exitcode}")
            self._found += b"\n" + lost.encode()
        self._on_done(self._found.decode(errors="replace"))


MAX_AT_ONCE = 4
"""The number of inspectors that run at once. Each keeps a CPU busy."""

PATIENCE_S = 2.0
"""How long an inspection may take after the request, in seconds. A worker parks for longer, see
`worker.parking`."""

Mode: TypeAlias = Literal["crash", "live", "native"]


class _Request(NamedTuple):
    link: WorkerLink
    mode: Mode
    patience_s: float
    deadline: float
    on_done: Callable[[str], None]


class Inspections:
    """All inspections of one pool.

    Args:
        loop: the event loop.
        libdw: the path of the library that unwinds stacks.
    """

    def __init__(self, loop: Loop, libdw: str) -> None:
        self._loop = loop
        self._libdw = libdw
        self._waiting: deque[_Request] = deque()
        self._running: list[tuple[_Request, Inspection]] = []

    def start(
        self,
        link: WorkerLink,
        mode: Mode,
        on_done: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Inspect a worker as soon as there is room. Crashes go first.

        Args:
            link: the worker; its process must exist.
            mode: "crash" if the worker has parked. "live" reads native stacks of a running worker,
                and has it write its Python stack. "native" only reads native stacks.
            on_done: called once, later, with the JSON lines of a `NativeReport`, complete or not.
            patience_s: how long the inspection may take, in seconds.
        """
        request = _Request(link, mode, patience_s, time.monotonic() + patience_s, on_done)
        if mode == "crash":
            self._end_live(link)  # two inspectors cannot trace the same thread
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        self._loop.call_at(request.deadline, self._drop_late)
        self._start_waiting()

    def cancel(self, link: WorkerLink) -> None:
        """The worker is dead: end its inspections, and answer with what they have found."""
        for request, inspection in self._running:
            if request.link is link:
                inspection.kill()
        for request in [each for each in self._waiting if each.link is link]:
            self._waiting.remove(request)
            request.on_done("")

    def pids(self) -> list[int]:
        """The PIDs of the running inspectors."""
        return [inspection.pid for _, inspection in self._running]

    def _end_live(self, link: WorkerLink) -> None:
        for request, inspection in self._running:
            if request.link is link and request.mode != "crash":
                inspection.kill()

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < MAX_AT_ONCE:
            self._begin(self._waiting.popleft())

    def _begin(self, request: _Request) -> None:
        def end(found: str) -> None:
            self._running.remove(running)
            if time.monotonic() > request.deadline:
                found += missing(f"the rest: it took longer than {request.patience_s:g} s to look")
            request.on_done(found)
            self._start_waiting()

        link = request.link
        try:
            inspection = Inspection(
                self._loop, request.mode, link.pid, link.pidfd, self._libdw, request.deadline, end
            )
        except OSError as error:
            request.on_done(missing(f"native stacks: no inspector could be started: {error}"))
            return
        running = (request, inspection)
        self._running.append(running)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for late in [each for each in self._waiting if each.deadline <= now]:
            self._waiting.remove(late)
            late.on_done(missing("native stacks: too many workers were looked into just then"))
