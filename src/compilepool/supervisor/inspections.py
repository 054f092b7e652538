"""The looks into workers: a few at a time, each with a time limit of its own."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from compilepool.supervisor.inspection import Inspection
from compilepool.supervisor.loop import Loop
from compilepool.supervisor.worker_link import WorkerLink
from compilepool.wire.snapshot import JobSnapshot

MAX_AT_ONCE = 4
"""Inspectors; each keeps a CPU busy."""

PATIENCE_S = 2.0
"""How long a look may take, from when it is asked for. A worker parks longer; `worker.parking`."""

Mode: TypeAlias = Literal["crash", "live"]


class _Request(NamedTuple):
    link: WorkerLink
    mode: Mode
    deadline: float
    on_done: Callable[[str], None]


class Inspections:
    """All inspections of one pool.

    Args:
        loop: the event loop.
        libdw: path of the library that unwinds stacks.
    """

    def __init__(self, loop: Loop, libdw: str) -> None:
        self._loop = loop
        self._libdw = libdw
        self._waiting: deque[_Request] = deque()
        self._running: list[tuple[WorkerLink, Inspection]] = []

    def look_and_kill(self, link: WorkerLink) -> None:
        """Look into a worker that has parked, then kill it."""

        def done(native: str) -> None:
            link.native = native
            link.kill()

        self._start(link, "crash", done)

    def take_snapshot(self, link: WorkerLink, on_done: Callable[[JobSnapshot], None]) -> None:
        """Look into a worker that runs a job.

        Args:
            link: the worker.
            on_done: called once, later.
        """
        link.crash_socket.forget()

        def done(native: str) -> None:
            if link.is_closed:
                on_done(JobSnapshot("ended"))
                return
            link.crash_socket.read()
            status = link.status
            now = time.monotonic()
            on_done(
                JobSnapshot(
                    "running",
                    link.crash_socket.text(),
                    native,
                    status.phase,
                    now - status.phase_since,
                    now - status.since,
                    link.output.tail().decode(errors="replace") if link.output else "",
                )
            )

        self._start(link, "live", done)

    def _start(self, link: WorkerLink, mode: Mode, on_done: Callable[[str], None]) -> None:
        """Look into a worker as soon as there is room, and call `on_done` with what was found: the
        JSON lines of a `NativeReport`, complete or not.
        """
        request = _Request(link, mode, time.monotonic() + PATIENCE_S, on_done)
        self._waiting.append(request)
        self._loop.call_at(request.deadline, self._drop_late)
        self._start_waiting()

    def cancel(self, link: WorkerLink) -> None:
        """The worker is dead: end what looks into it, and answer with what was found."""
        for looked_into, inspection in self._running:
            if looked_into is link:
                inspection.kill()
        for request in [each for each in self._waiting if each.link is link]:
            self._waiting.remove(request)
            request.on_done("")

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < MAX_AT_ONCE:
            self._begin(self._waiting.popleft())

    def _begin(self, request: _Request) -> None:
        def end(found: str) -> None:
            self._running.remove(running)
            if time.monotonic() > request.deadline:
                found += _missing(f"the rest: it took longer than {PATIENCE_S:g} s to look")
            request.on_done(found)
            self._start_waiting()

        link = request.link
        try:
            inspection = Inspection(
                self._loop, request.mode, link.pid, link.pidfd, self._libdw, request.deadline, end
            )
        except OSError as error:
            request.on_done(_missing(f"native stacks: no inspector could be started: {error}"))
            return
        running = (link, inspection)
        self._running.append(running)

    def _drop_late(self) -> None:
        while self._waiting and self._waiting[0].deadline <= time.monotonic():
            late = self._waiting.popleft()
            late.on_done(_missing("native stacks: too many other workers crashed just then"))


def _missing(what: str) -> str:
    return json.dumps({"missing": what}) + "\n"
