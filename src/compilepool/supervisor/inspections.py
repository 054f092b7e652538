"""The looks into workers: a few at a time, each with a time limit of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from compilepool.supervisor.inspection import Inspection, missing
from compilepool.supervisor.loop import Loop
from compilepool.supervisor.worker_link import WorkerLink
from compilepool.wire.light_typing import Literal, NamedTuple, TypeAlias

MAX_AT_ONCE = 4
"""Inspectors; each keeps a CPU busy."""

PATIENCE_S = 2.0
"""How long a look may take, from when it is asked for. A worker parks longer; `worker.parking`."""

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
        libdw: path of the library that unwinds stacks.
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
        """Look into a worker as soon as there is room; crashes go first.

        Args:
            link: the worker; its process must exist.
            mode: "crash" if it has parked, "live" if it runs and shall write its Python stack as
                well, "native" if it shall not.
            on_done: called once, later, with the JSON lines of a `NativeReport`, complete or not.
            patience_s: how long it may take, in seconds.
        """
        request = _Request(link, mode, patience_s, time.monotonic() + patience_s, on_done)
        if mode == "crash":
            self._end_live(link)  # two cannot hold the same thread
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        self._loop.call_at(request.deadline, self._drop_late)
        self._start_waiting()

    def cancel(self, link: WorkerLink) -> None:
        """The worker is dead: end what looks into it, and answer with what was found."""
        for request, inspection in self._running:
            if request.link is link:
                inspection.kill()
        for request in [each for each in self._waiting if each.link is link]:
            self._waiting.remove(request)
            request.on_done("")

    def pids(self) -> list[int]:
        """Of the inspectors that run."""
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
