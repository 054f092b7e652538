"""The supervisor's view of one worker."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping

from compilepool.light_typing import Any
from compilepool.linux.pidfds import send_signal
from compilepool.supervisor.links.crash_socket import CrashSocket
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker_output import WorkerOutput
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.failure import Cause, Failure, ProcessMemory
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload
from compilepool.wire.status_page import Status, make_status, read_status
from compilepool.wire.submission import JobTerms, job_message
from compilepool.wire.usage import NO_USAGE, Usage, phases_text
from compilepool.wire.worker_start import WorkerFds


class Crash:
    """A worker's crash.

    Attributes:
        signal: the fatal signal; None if there was none.
        text: what Python wrote of it.
        seen_at: when it was seen, by `time.monotonic()`.
        native: what was found in the worker, JSON lines of a `NativeReport`.
    """

    def __init__(
        self,
        signal: signal.Signals | None,
        text: str = "",
        seen_at: float = 0.0,
        native: str = "",
    ) -> None:
        self.signal = signal
        self.text = text
        self.seen_at = seen_at
        self.native = native


class Verdict:
    """Why a job must end that its worker runs.

    Attributes:
        cause: TIMEOUT or MEMORY.
        limit: what it has gone over, in seconds or bytes.
        used_bytes: what it took, for MEMORY.
        processes: who took it, the largest first.
        snapshot: what the job did then, as far as it could be found out.
    """

    def __init__(
        self,
        cause: Cause,
        limit: float,
        used_bytes: int = 0,
        processes: tuple[ProcessMemory, ...] = (),
    ) -> None:
        self.cause = cause
        self.limit = limit
        self.used_bytes = used_bytes
        self.processes = processes
        self.snapshot: JobSnapshot | None = None


class WorkerLink:
    """A worker's process, and what it shares with the supervisor.

    The worker's end of the socket stays open here as well: what is sent can be taken back from it
    until the worker has read it. The kernel sees to it that only one of the two gets a job.

    Args:
        number: the worker's number.
        output_loop: where the output of its jobs is read; None if it is not captured.
        log: called with all that its jobs write.

    Raises:
        OSError: no descriptors.
    """

    def __init__(self, number: int, output_loop: Loop | None, log: Callable[[bytes], None]) -> None:
        self.number = number
        with contextlib.ExitStack() as stack:
            self.channel, theirs = Channel.pair()
            stack.callback(self.channel.close)
            stack.callback(theirs.close)
            self._theirs = Channel(theirs)
            self.crash_socket = CrashSocket()
            stack.callback(self.crash_socket.close)
            self._status_fd = make_status()
            stack.callback(os.close, self._status_fd)
            self.output = None
            if output_loop is not None:
                self.output = WorkerOutput(output_loop, log)
            stack.pop_all()
        self._unsent: deque[tuple[int, JobTerms, Payload]] = deque()
        self.jobs: list[int] = []
        """Those that it has and that have not ended; the first one runs, if it has begun."""
        self.pid = 0
        self.pidfd = -1
        self.is_closed = False
        self._is_doomed = False
        self.trouble = ""
        """What went wrong with it, if the supervisor knows."""
        self.is_ready = False
        self.is_suspected = False
        """Whether it is being found out if it has crashed."""
        self.crash: Crash | None = None
        """Its crash, since it was seen."""
        self.verdict: Verdict | None = None
        """Why it is to die, if that is for a limit of the job that it runs."""
        self.importing = ""
        """The module that it preloads by itself just now."""
        self._memory_seen = (0, 0)

    @property
    def fds(self) -> WorkerFds:
        """What the worker needs, but for what all workers start with."""
        return WorkerFds(
            self._theirs.fileno(),
            self.crash_socket.fd_of_worker,
            self._status_fd,
            self.output.fds_of_worker if self.output else None,
            None,
        )

    @property
    def status(self) -> Status:
        """What it does, or was doing when it died."""
        return read_status(self._status_fd)

    @property
    def has_started(self) -> bool:
        """Whether its process exists."""
        return self.pidfd >= 0

    def started(self, pid: int, pidfd: int) -> None:
        """The worker's process exists. Takes over `pidfd`."""
        self.pid = pid
        self.pidfd = pidfd
        self.crash_socket.belongs_to(pid)
        if self.output is not None:
            self.output.worker_has_started()
        if self._is_doomed:
            self.kill()

    def kill(self) -> None:
        """Kill the worker, or have it killed as soon as it exists."""
        self._is_doomed = True
        if self.has_started:
            send_signal(self.pidfd, signal.SIGKILL)

    def note_memory(self, total: int) -> None:
        """The job that runs takes so many bytes just now."""
        job, most = self._memory_seen
        now = self.status.job
        self._memory_seen = now, max(total, most if job == now else 0)

    def memory_seen(self, job: int) -> int:
        """The most that a job was seen to take, in bytes; 0 if nobody has looked."""
        return self._memory_seen[1] if self._memory_seen[0] == job else 0

    def why_dead(self, exitcode: int | None, told: Mapping[str, Any]) -> Failure:
        """Why it is dead.

        Args:
            exitcode: of its process.
            told: what else its WORKER_EXITED message says.
        """
        crash = self.crash or Crash(self.crash_socket.signal)
        if crash.signal is not None:
            exitcode = -crash.signal  # it was killed when it had been looked into
        status = self.status
        now = time.monotonic()
        since = (crash.seen_at or now) - status.phase_since
        peak_bytes = told.get("peak_bytes")
        usage = self._usage(status, now, told)
        if self.verdict is not None:
            return self._why_ended(self.verdict, usage)
        return Failure(
            Cause.CRASH if self.is_ready else Cause.START,
            exitcode,
            text=self.trouble
            or str(told.get("error") or "")
            or crash.text
            or self.crash_socket.crash(),
            native=crash.native,
            phase=status.phase,
            phase_s=since if status.job else 0.0,
            peak_bytes=peak_bytes if isinstance(peak_bytes, int) else 0,
            usage=usage,
        )

    def _why_ended(self, verdict: Verdict, usage: Usage) -> Failure:
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
        )

    def _usage(self, status: Status, now: float, told: Mapping[str, Any]) -> Usage:
        """What the job that ran has used, as its worker cannot tell any more."""
        if not status.job:
            return NO_USAGE
        cpu_s, peak_bytes = told.get("cpu_s"), told.get("peak_bytes")
        spent_s = cpu_s - status.before.cpu_s if isinstance(cpu_s, int | float) else 0.0
        peak = self.memory_seen(status.job)
        # What a child of an earlier job had would tell nothing of this one.
        if isinstance(peak_bytes, int) and peak_bytes > status.before.children_peak:
            peak = max(peak, peak_bytes - status.before.resident)
        usage = Usage(status.since, now, max(0.0, spent_s), peak, self.pid)
        if not status.phase:
            return usage
        return usage._replace(phases=phases_text([(status.phase, status.phase_since)]))

    def snapshot(self, native: str) -> JobSnapshot:
        """What its job does, with the JSON lines of a `NativeReport`."""
        if self.is_closed:
            return JobSnapshot("ended")
        status = self.status
        now = time.monotonic()
        return JobSnapshot(
            "running",
            self.crash.text if self.crash else self.crash_socket.dump(),
            native,
            status.phase,
            now - status.phase_since,
            now - status.since,
            self.output_tail(),
        )

    def output_tail(self) -> str:
        """The end of the output of the job that runs."""
        return self.output.tail().decode(errors="replace") if self.output is not None else ""

    def send_job(self, number: int, terms: JobTerms, payload: Payload) -> bool:
        """Put a job into the worker's socket.

        Returns:
            As `send_rest`.
        """
        self.jobs.append(number)
        if self.output is not None:
            self.output.has_jobs(len(self.jobs))
        if not self._unsent and self._send(number, terms, payload):
            return True
        self._unsent.append((number, terms, payload))
        return False

    def send_rest(self) -> bool:
        """Put what is left into the worker's socket.

        There is always room: a worker has few jobs, of which only the first may be large and
        inline. But where the descriptors in flight of all the user's processes are more than the
        limit of open files, unix(7), the kernel takes no more for now. It does not tell when it
        would.

        Returns:
            False if jobs are left for later.
        """
        while self._unsent:
            if not self._send(*self._unsent[0]):
                return False
            self._unsent.popleft()
        return True

    def _send(self, number: int, terms: JobTerms, payload: Payload) -> bool:
        message = job_message(number, terms, payload)
        if not message.fds:
            return self.channel.send(message, wait=False)
        try:
            return self.channel.send(message, wait=False)
        finally:
            for fd in set(message.fds) - {payload.fd}:
                os.close(fd)

    def job_ended(self, *, has_output: bool = True) -> bytes:
        """Its first job has ended, and may have written output. Returns the end of it."""
        output = self.output
        if output is None:
            del self.jobs[0]
            return b""
        tail = output.end_of_job(is_told=has_output)
        del self.jobs[0]
        output.has_jobs(len(self.jobs))
        return tail

    def take_back(self) -> list[int]:
        """Take the jobs that the worker has not read from its socket; returns their numbers."""
        jobs = []
        while messages := self._theirs.receive(wait=False):
            close_messages(messages)
            jobs += [message.id for message in messages if message.kind is Kind.JOB]
        jobs += [number for number, _, _ in self._unsent]
        self._unsent.clear()
        for job in jobs:
            self.jobs.remove(job)
        if self.output is not None:
            self.output.has_jobs(len(self.jobs))
        return jobs

    def last_words(self) -> list[Message]:
        """All that a dead worker has sent and nobody has read."""
        words: list[Message] = []
        with contextlib.suppress(ProtocolError):
            while messages := self.channel.receive(wait=False):
                words += messages
        return words

    def end_input(self) -> None:
        """Have the worker see the end of its input, and exit when it has nothing to do."""
        self.channel.shutdown_output()

    def close(self) -> None:
        """Close all descriptors. The channel's and the crash socket's must not be watched."""
        self.is_closed = True
        self.channel.close()
        self._theirs.close()
        self.crash_socket.close()
        os.close(self._status_fd)
        if self.output is not None:
            self.output.close()
            # It calls who knows this one: not even the garbage collector would be soon enough, for
            # links have large buffers.
            self.output = None
        if self.has_started:
            os.close(self.pidfd)
            self.pidfd = -1
