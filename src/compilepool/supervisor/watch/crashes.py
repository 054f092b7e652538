"""Notices that workers crash, and inspects workers that have crashed or still run."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable

from compilepool.linux import pidfds, proc
from compilepool.linux.signals import DUMP_SIGNAL
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.deaths import Deaths
from compilepool.supervisor.watch.evidence import Crash
from compilepool.supervisor.watch.inspections import Inspections, missing
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.native_report import NativeReport
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.python_stack import last_crash

_PYTHON_STACK_S = 0.5
_QUIET_S = 0.02
_DYING_S = 0.2  # a dying process closes its descriptors; this much later it is seen to be dead


class CrashWatch:
    """Watches the workers of one pool.

    Args:
        loop: the event loop.
        config: the pool's configuration.
        deaths: collects the crashes as evidence.
        on_crash: called with the number of a worker that has crashed, before it is inspected.
    """

    def __init__(
        self, loop: Loop, config: PoolConfig, deaths: Deaths, on_crash: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._config = config
        self._deaths = deaths
        self._on_crash = on_crash
        self._inspections = Inspections(loop, config.libdw)

    def inspector_pids(self) -> list[int]:
        """The PIDs of the running inspectors."""
        return self._inspections.pids()

    def read(self, link: WorkerLink) -> None:
        """Read the worker's crash socket, and act on what it says."""
        if not link.crash_socket.read():
            self._loop.forget(link.crash_socket.fileno())
            # A dying worker also closes the socket, a moment before it is seen to be dead.
            self._loop.call_at(time.monotonic() + _DYING_S, lambda: self._kill_if_alive(link))
        for pid in link.crash_socket.crashed_others():
            # C code in the run has forked this process. It parks for seconds, for an inspector that
            # does not come.
            if link.has_started:
                pidfds.kill_below(pid, link.pid, link.pidfd)
        if link.crash_socket.signal is not None and self._config.native_tracebacks:
            known = self._deaths.evidence(link)
            if known.crash is None:
                known.crash = Crash(link.crash_socket.signal, seen_at=time.monotonic())
                self._inspect_crash(link, known.crash)

    def _inspect_crash(self, link: WorkerLink, crash: Crash) -> None:
        """Inspect a worker that has crashed, and then kill it.

        The worker has parked, or is about to.
        """
        self._on_crash(link.number)

        def done(native: str) -> None:
            if not link.is_closed:
                link.crash_socket.read()
                crash.text = link.crash_socket.crash()
            crash.native = native
            link.kill()

        self._inspections.start(link, "crash", done)

    def suspect(self, link: WorkerLink) -> None:
        """Find out whether a worker has crashed, because its output tells of a crash.

        When Python itself aborts (Py_FatalError), it first disables faulthandler, so the crash
        socket receives nothing. The same words may come from a process that the run has started.
        """
        known = self._deaths.evidence(link)
        if known.crash is not None or known.is_suspected or not self._config.native_tracebacks:
            return
        known.is_suspected = True

        def done(native: str) -> None:
            known.is_suspected = False
            has_parked = NativeReport.of_lines(native.encode()).crash is not None
            if has_parked and known.crash is None and not link.is_closed:
                text = last_crash(link.output_tail())
                known.crash = Crash(signal.SIGABRT, text, time.monotonic(), native)
                self._on_crash(link.number)
                link.kill()

        self._inspections.start(link, "crash", done)

    def _kill_if_alive(self, link: WorkerLink) -> None:
        if not link.is_closed and not pidfds.wait_dead(link.pidfd, 0):
            # The supervisor would not hear of its crash, and the worker can send no result.
            link.trouble = "it was killed because its job has closed the pool's descriptors"
            link.kill()

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead, and its link is closed."""
        self._inspections.cancel(link)

    def snapshot(self, link: WorkerLink, native: str) -> JobSnapshot:
        """What is known about the run that a worker has begun.

        Args:
            link: the worker.
            native: what an inspector has found, as JSON lines of a `NativeReport`.
        """
        if link.is_closed:
            return JobSnapshot("ended")
        crash, status, now = self._deaths.evidence(link).crash, link.status, time.monotonic()
        return JobSnapshot(
            "running",
            crash.text if crash else link.crash_socket.dump(),
            native,
            status.phase,
            now - status.phase_since,
            now - status.since,
            link.output_tail(),
        )

    def ask_for_python_stack(self, link: WorkerLink) -> None:
        """Ask the worker to write its Python stack; `python_stack` returns what has come."""
        self.read(link)
        link.crash_socket.forget_dump()
        if proc.catches(link.pid, DUMP_SIGNAL):  # otherwise the signal could kill the worker
            pidfds.send_signal(link.pidfd, DUMP_SIGNAL)

    def python_stack(self, link: WorkerLink) -> str:
        """What the worker has written of its Python stack until now."""
        self.read(link)
        return link.crash_socket.dump()

    def read_native_stacks(
        self, link: WorkerLink, on_done: Callable[[str], None], patience_s: float
    ) -> None:
        """Have an inspector read a worker's native stacks, and list the processes below the worker.

        Args:
            link: the worker, which may be stopped.
            on_done: called once, with the JSON lines of a `NativeReport`, complete or not.
            patience_s: how long the inspector may take, in seconds.
        """
        self._inspections.start(link, "native", on_done, patience_s)

    def take_snapshot(self, link: WorkerLink, on_done: Callable[[JobSnapshot], None]) -> None:
        """Find out what a worker does, which has begun a run; `on_done` is called once."""
        self.read(link)
        if self._deaths.evidence(link).crash is not None:
            native = missing("stacks: it has crashed; the error of its job has them")
            on_done(self.snapshot(link, native))
            return
        link.crash_socket.forget_dump()

        def on_stacks(native: str) -> None:
            self._finish_snapshot(link, native, "", time.monotonic() + _PYTHON_STACK_S, on_done)

        self._inspections.start(link, "live", on_stacks)

    def _finish_snapshot(
        self,
        link: WorkerLink,
        native: str,
        text_before: str,
        deadline: float,
        on_done: Callable[[JobSnapshot], None],
    ) -> None:
        """Wait until the requested Python stack has come and stops growing, then answer."""
        if not link.is_closed:
            self.read(link)
        text = link.crash_socket.dump()
        is_complete = text != "" and text == text_before
        is_over = link.is_closed or self._deaths.evidence(link).crash is not None
        if is_over or is_complete or "Python stack:" in native:
            on_done(self.snapshot(link, native))
            return
        now = time.monotonic()
        if now > deadline:
            if not text:
                native += missing(f"Python stack: it did not come within {_PYTHON_STACK_S:g} s")
            on_done(self.snapshot(link, native))
            return
        again = functools.partial(self._finish_snapshot, link, native, text, deadline, on_done)
        self._loop.call_at(now + _QUIET_S, again)
