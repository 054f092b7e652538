"""Says why a run has failed, or why there is no worker. Nothing else makes a `Failure`.

While a worker lives, `CrashWatch` and `LimitWatch` collect evidence of why it will die. When the
worker is dead, `Deaths.of_worker` combines that evidence with what the fork server reports, which
has reaped the worker.
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Mapping

from compilepool.light_typing import Any
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.evidence import Crash, Evidence, Verdict
from compilepool.supervisor.watch.free_memory import OomWatch
from compilepool.supervisor.watch.inspections import missing
from compilepool.wire.failure import KILLED_FROM_OUTSIDE, TERMINATED, Cause, Failure, LeftBehind
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.native_report import NativeReport
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.python_stack import PythonFrame, crashed_thread
from compilepool.wire.status_page import Status
from compilepool.wire.usage import NO_USAGE, Usage, phases_text

_CRASHED = tuple(
    -number
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
)

_WORKER_LOOP = "compilepool/worker/main.py"


class Deaths:
    """Knows why the workers of one pool die.

    Args:
        config: the pool's configuration.
    """

    def __init__(self, config: PoolConfig) -> None:
        self._config = config
        self._evidence: defaultdict[WorkerLink, Evidence] = defaultdict(Evidence)
        self._oom_watch = OomWatch()

    def evidence(self, link: WorkerLink) -> Evidence:
        """The evidence about the end of a worker, whose link is not closed."""
        return self._evidence[link]

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead, and its link is closed."""
        self._evidence.pop(link, None)

    def note_long_run(self) -> None:
        """A run turns out to be long. A kill for lack of memory from now on may concern it."""
        self._oom_watch.reset()

    def of_worker(
        self, link: WorkerLink, exitcode: int | None, told: Mapping[str, Any], attempts: int
    ) -> Failure:
        """Why a worker is dead.

        Args:
            link: the worker's link. All that the worker has sent was handled.
            exitcode: the worker's exit code, or the negated signal number; None if unknown.
            told: the other fields of the WORKER_EXITED message: "error", "cpu_s", "peak_bytes".
            attempts: how often the worker's last run was begun, in any worker.
        """
        link.crash_socket.read()
        evidence = self.evidence(link)
        usage = _usage(link, told, attempts)
        if evidence.verdict is not None:
            return _over_limit(evidence.verdict, usage, link)
        crash = evidence.crash or Crash(link.crash_socket.signal)
        if crash.signal is not None:
            exitcode = -crash.signal  # the pool's SIGKILL came only after the crash
        text = (
            link.trouble or str(told.get("error") or "") or crash.text or link.crash_socket.crash()
        )
        status = link.status
        since = (crash.seen_at or time.monotonic()) - status.phase_since
        was_killed = exitcode == -signal.SIGKILL
        has_oom = self._oom_watch.has_struck() if was_killed else None
        return Failure(
            _cause(link, status),
            exitcode,
            text=text,
            native=crash.native or self._why_no_stacks(exitcode, text),
            phase=status.phase,
            phase_s=since if status.job else 0.0,
            peak_bytes=_integer(told.get("peak_bytes")),
            is_out_of_memory=has_oom,
            usage=usage,
            jobs_before=link.served,
            last_job=link.last_served,
            left_behind=LeftBehind.NOTHING
            if has_oom
            else _left_behind(status, exitcode, crash.native, text),
        )

    def _why_no_stacks(self, exitcode: int | None, text: str) -> str:
        """Why the report lacks native stacks, if the worker has crashed unseen; else empty."""
        if not self._config.native_tracebacks or exitcode not in _CRASHED:
            return ""
        reason = "the process was dead before anybody looked at it"
        if not text:
            reason = "the job has replaced the handler of that signal, or its stack was full"
        return missing(f"native stacks: {reason}")


def not_started(error: OSError) -> Failure:
    """Why there is no worker: a process could not be started."""
    return Failure(Cause.START, text=str(error))


def terminated(why: Failure) -> Failure:
    """Why a run fails whose worker has got SIGTERM because the user terminates the pool."""
    return why._replace(text=TERMINATED, left_behind=LeftBehind.NOTHING)


def of_fork_server(exitcode: int | None, importing: str, text: str) -> Failure:
    """Why the runs of a fork server's workers are lost.

    Args:
        exitcode: the fork server's exit code, or the negated signal number; None if unknown.
        importing: the module that it was preloading; empty if none.
        text: what faulthandler has written about its crash.
    """
    return Failure(Cause.FORK_SERVER, exitcode, importing, text)


def preload_raised(module: str, text: str) -> Failure:
    """Why there is no worker: a preload module could not be imported.

    Args:
        module: the name of the module.
        text: the traceback.
    """
    return Failure(Cause.PRELOAD, module=module, text=text)


def of_preload(why: Failure, module: str) -> Failure | None:
    """Why there is no worker: the process that imports the preload modules died.

    Args:
        why: why it died.
        module: the module that it was importing; empty if it had not begun to import.

    Returns:
        None if somebody outside has killed the process. Then the next one may succeed.
    """
    if why.exitcode in KILLED_FROM_OUTSIDE:
        return None
    return why._replace(cause=Cause.PRELOAD, module=module)


def without_worker(why: Failure) -> Failure:
    """Why the runs that wait get no worker.

    Args:
        why: why the last worker, or its fork server, died.
    """
    concerns_run = why.cause in (Cause.CRASH, Cause.TEARDOWN, Cause.IDLE, Cause.FORK_SERVER)
    return why._replace(cause=Cause.START) if concerns_run else why


def _cause(link: WorkerLink, status: Status) -> Cause:
    if not link.is_ready:
        return Cause.START
    if not status.job or status.job in link.runs:
        return Cause.CRASH
    return Cause.TEARDOWN if status.ended else Cause.IDLE


def _left_behind(status: Status, exitcode: int | None, native: str, text: str) -> LeftBehind:
    """What earlier jobs have left in the worker that may have killed it."""
    site = NativeReport.of_lines(native.encode()).crash
    if site is not None:
        return LeftBehind.THREAD if site.tid in status.threads else LeftBehind.NOTHING
    thread = crashed_thread(text)
    if thread is not None:  # without native stacks, its id is unknown
        is_of_job = not thread.is_current or any(_is_of_worker(each) for each in thread.frames)
        is_left = bool(status.threads) and not is_of_job
        return LeftBehind.THREAD if is_left else LeftBehind.NOTHING
    is_sent = exitcode is not None and exitcode < 0 and exitcode not in _CRASHED
    return LeftBehind.PROCESS if is_sent and status.processes else LeftBehind.NOTHING


def _is_of_worker(frame: PythonFrame) -> bool:
    """Whether a frame is of the loop that runs the jobs, so that its thread is the main one."""
    return frame.file.endswith(_WORKER_LOOP)


def _over_limit(verdict: Verdict, usage: Usage, link: WorkerLink) -> Failure:
    snapshot = verdict.snapshot or JobSnapshot("running")
    return Failure(
        verdict.cause,
        text=snapshot.text,
        native=snapshot.native,
        phase=snapshot.phase,
        phase_s=snapshot.phase_s,
        peak_bytes=max(verdict.used_bytes, usage.peak_bytes),
        limit=verdict.limit,
        processes=verdict.processes,
        usage=usage,
        jobs_before=link.served,
        last_job=link.last_served,
    )


def _usage(link: WorkerLink, told: Mapping[str, Any], attempts: int) -> Usage:
    """The time and memory that the worker's last run has used."""
    status = link.status
    if not status.job:
        return NO_USAGE
    cpu_s = told.get("cpu_s")
    spent_s = cpu_s - status.before.cpu_s if isinstance(cpu_s, int | float) else 0.0
    peak = link.memory_seen(status.job)
    # If the children's peak has not grown, a child of an earlier run has set it.
    if (of_children := _integer(told.get("peak_bytes"))) > status.before.children_peak:
        peak = max(peak, of_children - status.before.resident)
    phases = phases_text([(status.phase, status.phase_since)]) if status.phase else ""
    return Usage(
        status.since,
        time.monotonic(),
        max(0.0, spent_s),
        peak,
        link.pid,
        attempts,
        phases=phases,
    )


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
