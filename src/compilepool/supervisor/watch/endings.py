"""Ends the workers whose run must end, because it is over a limit or cancelled.

If the run is over a limit, the worker first writes its Python stack, and is then stopped. If the
limit is the timeout, an inspector reads the native stacks and lists the worker's children. Then all
processes below the stopped worker get SIGTERM and a moment, so that a compiler can remove its
temporary files. Then the worker is killed. When it is dead, the fork server kills what it leaves.
"""

from __future__ import annotations

import functools
import os
import signal
import time

from compilepool.linux import pidfds
from compilepool.linux.pidfds import signal_descendants
from compilepool.linux.signals import DUMP_SIGNAL
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.crashes import CrashWatch
from compilepool.supervisor.watch.deaths import Deaths
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.inspections import missing
from compilepool.wire.failure import Cause

GRACE_S = 0.1
"""How long the processes that a run has started may take to end after SIGTERM, in seconds."""

_SHORTEST_INSPECTION_S = 0.3
_LONGEST_INSPECTION_S = 2.0
_PYTHON_STACK_S = {Cause.TIMEOUT: 0.1, Cause.MEMORY: 0.03}  # the run may allocate meanwhile
_QUIET_S = 0.005
_NO_PYTHON_STACK = (
    f"Python stack: signal {int(DUMP_SIGNAL)} asks for it, and was not answered: the job has"
    " blocked it, or replaced its handler, or the process is stuck in the kernel"
)


def inspection_s(timeout_s: float) -> float:
    """How long the inspection of a run that is over its timeout may take, in seconds."""
    return min(max(timeout_s / 2, _SHORTEST_INSPECTION_S), _LONGEST_INSPECTION_S)


class _Findings:
    """What is known so far about a run that is over a limit.

    Attributes:
        verdict: why the run must end.
        python_until: the time until which to wait for the Python stack, by `time.monotonic()`.
        text: what has come of the Python stack.
        native: the native stacks, JSON lines of a `NativeReport`; None while they are being read.
        is_stopped: whether the worker is stopped.
    """

    def __init__(self, verdict: Verdict, python_until: float) -> None:
        self.verdict = verdict
        self.python_until = python_until
        self.text = ""
        self.native: str | None = None
        self.is_stopped = False


class Endings:
    """Ends workers of one pool.

    Args:
        loop: the event loop.
        crash_watch: inspects workers.
        deaths: has the evidence of why a worker must end.
    """

    def __init__(self, loop: Loop, crash_watch: CrashWatch, deaths: Deaths) -> None:
        self._loop = loop
        self._crash_watch = crash_watch
        self._deaths = deaths
        self._told_to_end: dict[int, set[int]] = {}
        """For each stopped worker, the pidfds of the processes below it that still live."""

    def end(self, link: WorkerLink) -> None:
        """Kill the worker within a bound. Its death is noticed like any other death."""
        known = self._deaths.evidence(link)
        if not link.has_started or known.crash is not None:
            link.kill()
        elif known.verdict is None:
            pidfds.send_signal(link.pidfd, signal.SIGSTOP)
            self._end_children(link)
        else:
            self._inspect(link, known.verdict)

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead."""
        for pidfd in self._told_to_end.pop(link.number, ()):
            self._close(pidfd)

    def _inspect(self, link: WorkerLink, verdict: Verdict) -> None:
        findings = _Findings(verdict, time.monotonic() + _PYTHON_STACK_S[verdict.cause])

        def on_stacks(native: str) -> None:
            findings.native = native
            self._end_if_complete(link, findings)

        self._crash_watch.ask_for_python_stack(link)
        if verdict.cause is Cause.TIMEOUT:
            # The inspector takes longer to start than Python takes to answer. So it usually finds
            # the worker stopped.
            self._crash_watch.read_native_stacks(link, on_stacks, inspection_s(verdict.limit))
        else:
            signal_descendants(link.pid, link.pidfd, signal.SIGSTOP, keep=False)
            findings.native = ""
        self._await_python_stack(link, findings)

    def _await_python_stack(self, link: WorkerLink, findings: _Findings) -> None:
        """Wait until the Python stack has come and stops growing, then stop the worker."""
        if link.is_closed:
            return
        before, findings.text = findings.text, self._crash_watch.python_stack(link)
        if (findings.text and findings.text == before) or time.monotonic() > findings.python_until:
            pidfds.send_signal(link.pidfd, signal.SIGSTOP)
            findings.is_stopped = True
            self._end_if_complete(link, findings)
        else:
            again = functools.partial(self._await_python_stack, link, findings)
            self._loop.call_at(time.monotonic() + _QUIET_S, again)

    def _end_if_complete(self, link: WorkerLink, findings: _Findings) -> None:
        """End the run once the native stacks are there and the worker is stopped."""
        if link.is_closed or findings.native is None or not findings.is_stopped:
            return
        native = findings.native if findings.text else findings.native + missing(_NO_PYTHON_STACK)
        findings.verdict.snapshot = self._crash_watch.snapshot(link, native)
        self._end_children(link)

    def _end_children(self, link: WorkerLink) -> None:
        told = signal_descendants(link.pid, link.pidfd, signal.SIGTERM)
        for pidfd in told:
            pidfds.send_signal(pidfd, signal.SIGCONT)  # a stopped process handles no SIGTERM
        if not told:
            link.kill()
            return
        self._told_to_end[link.number] = set(told)
        for pidfd in told:
            self._loop.watch(pidfd, functools.partial(self._child_has_ended, link, pidfd))
        self._loop.call_at(time.monotonic() + GRACE_S, functools.partial(self._kill, link))

    def _child_has_ended(self, link: WorkerLink, pidfd: int) -> None:
        left = self._told_to_end.get(link.number, set())
        if pidfd in left:
            left.remove(pidfd)
            self._close(pidfd)
            if not left:
                self._kill(link)

    def _kill(self, link: WorkerLink) -> None:
        self.forget(link)
        if not link.is_closed:
            link.kill()

    def _close(self, pidfd: int) -> None:
        self._loop.forget(pidfd)
        os.close(pidfd)
