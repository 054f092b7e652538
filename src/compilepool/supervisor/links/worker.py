"""The supervisor's end of one worker: its socket, its status, its output, and the jobs it has."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable

from compilepool.linux.pidfds import send_signal
from compilepool.supervisor.links.crash_socket import CrashSocket
from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker_output import WorkerOutput
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload
from compilepool.wire.status_page import Status, make_status, read_status
from compilepool.wire.submission import JobTerms, job_message
from compilepool.wire.worker_start import WorkerFds


class WorkerLink:
    """A worker's process, and what it shares with the supervisor.

    The worker's end of the socket stays open here as well, so that a job can be taken back from it
    until the worker has read the job. The kernel gives each job to one of the two readers only.

    Args:
        number: the worker's number.
        output_loop: where the output of its jobs is read; None if it is not captured.
        log: called with all output of its jobs.

    Raises:
        OSError: too many files are open.
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
        """The jobs that it has and that have not ended. If one has begun, it is the first."""
        self.pid = 0
        self.pidfd = -1
        self.is_closed = False
        self._is_doomed = False
        self.trouble = ""
        """What went wrong between it and the supervisor, in words; empty if nothing did."""
        self.is_ready = False
        self.importing = ""
        """The module that it preloads just now, if it preloads by itself; else empty."""
        self._memory_seen = (0, 0)

    @property
    def fds(self) -> WorkerFds:
        """The descriptors that the worker needs, except those that all workers share."""
        return WorkerFds(
            self._theirs.fileno(),
            self.crash_socket.fd_of_worker,
            self._status_fd,
            self.output.fds_of_worker if self.output else None,
            None,
        )

    @property
    def status(self) -> Status:
        """What the worker does, or did when it died."""
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
        """Note how many bytes the running job takes just now."""
        job, most = self._memory_seen
        now = self.status.job
        self._memory_seen = now, max(total, most if job == now else 0)

    def memory_seen(self, job: int) -> int:
        """The most bytes that a job was seen to take; 0 if nobody has looked."""
        return self._memory_seen[1] if self._memory_seen[0] == job else 0

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
        inline. But the kernel takes no descriptor while all the user's processes together have more
        in flight than the limit of open files, unix(7). It does not tell when it would.

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
        """Note that its first job has ended. Returns the end of the job's output."""
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
            # `log` refers to whoever refers to this link. The garbage collector would free such a
            # cycle too late, because links have large buffers.
            self.output = None
        if self.has_started:
            os.close(self.pidfd)
            self.pidfd = -1
