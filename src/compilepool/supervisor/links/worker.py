"""The supervisor's end of one worker: its socket, its status, its output, and its runs."""

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

    The worker's end of the socket stays open in the supervisor as well. So the supervisor can take
    a run back until the worker has read it. The kernel gives each run to only one of the two
    readers.

    Args:
        number: the worker's number.
        output_loop: the loop that reads the output of runs; None if the output is not captured.
        log: called with all output of runs, as it comes.

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
        self.runs: list[int] = []
        """The unfinished runs that the worker has. If one has begun, it is the first."""
        self.pid = 0
        self.pidfd = -1
        self.is_closed = False
        self._is_doomed = False
        self.trouble = ""
        """What went wrong between worker and supervisor, in words; empty if nothing did."""
        self.is_ready = False
        self.importing = ""
        """The module that the worker is preloading, if it was spawned; else empty."""
        self._memory_seen = (0, 0)
        self.served = 0
        """The number of runs that have ended in it."""
        self.last_served = ""
        """The name of the job of the last of them; empty if there was none."""

    @property
    def fds(self) -> WorkerFds:
        """The descriptors for the worker, except those that all workers share."""
        return WorkerFds(
            self._theirs.fileno(),
            self.crash_socket.fd_of_worker,
            self._status_fd,
            self.output.fds_of_worker if self.output else None,
            None,
        )

    @property
    def status(self) -> Status:
        """What the worker is doing, or was doing when it died."""
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

    def terminate(self) -> None:
        """Send SIGTERM to the worker, which has started and may handle the signal."""
        send_signal(self.pidfd, signal.SIGTERM)

    def note_served(self, job: str) -> None:
        """Note that a run has ended, for a job of this name."""
        self.served += 1
        self.last_served = job

    def note_memory(self, total: int) -> None:
        """Note how many bytes the current run takes now."""
        run, most = self._memory_seen
        current = self.status.job
        self._memory_seen = current, max(total, most if run == current else 0)

    def memory_seen(self, run: int) -> int:
        """The most bytes that a run was seen to take; 0 if it was never measured."""
        return self._memory_seen[1] if self._memory_seen[0] == run else 0

    def output_tail(self) -> str:
        """The end of the output of the current run."""
        return self.output.tail().decode(errors="replace") if self.output is not None else ""

    def send_run(self, id: int, terms: JobTerms, payload: Payload) -> bool:
        """Put a run into the worker's socket.

        Returns:
            False if the run waits for `send_rest`.
        """
        self.runs.append(id)
        if self.output is not None:
            self.output.has_runs(len(self.runs))
        if not self._unsent and self._send(id, terms, payload):
            return True
        self._unsent.append((id, terms, payload))
        return False

    def send_rest(self) -> bool:
        """Put the runs that could not be sent before into the worker's socket.

        The socket always has room: a worker has few runs, and only the first may be large and
        inline. But the kernel refuses descriptors while all processes of the user together have
        more of them in flight than the limit of open files, unix(7). It gives no sign when it would
        take them again.

        Returns:
            False if runs are still left.
        """
        while self._unsent:
            if not self._send(*self._unsent[0]):
                return False
            self._unsent.popleft()
        return True

    def _send(self, id: int, terms: JobTerms, payload: Payload) -> bool:
        message = job_message(id, terms, payload)
        if not message.fds:
            return self.channel.send(message, wait=False)
        try:
            return self.channel.send(message, wait=False)
        finally:
            for fd in set(message.fds) - {payload.fd}:
                os.close(fd)

    def run_ended(self, *, has_output: bool = True) -> bytes:
        """Note that the worker's first run has ended.

        Args:
            has_output: whether the run may have written something that nobody has read.

        Returns:
            The end of the run's output.
        """
        output = self.output
        if output is None:
            del self.runs[0]
            return b""
        tail = output.end_of_run(has_output=has_output)
        del self.runs[0]
        output.has_runs(len(self.runs))
        return tail

    def take_back(self) -> list[int]:
        """Take the runs that the worker has not read from its socket, in the order sent."""
        unread = []
        while messages := self._theirs.receive(wait=False):
            close_messages(messages)
            unread += [message.id for message in messages if message.kind is Kind.JOB]
        unread += [id for id, _, _ in self._unsent]
        self._unsent.clear()
        for id in unread:
            self.runs.remove(id)
        if self.output is not None:
            self.output.has_runs(len(self.runs))
        return unread

    def last_words(self) -> list[Message]:
        """The messages of a dead worker that nobody has read."""
        words: list[Message] = []
        with contextlib.suppress(ProtocolError):
            while messages := self.channel.receive(wait=False):
                words += messages
        return words

    def end_input(self) -> None:
        """Close the worker's input, so that it exits when it has nothing left to do."""
        self.channel.shutdown_output()

    def close(self) -> None:
        """Close all descriptors. The loop must have forgotten the channel and the crash socket."""
        self.is_closed = True
        self.channel.close()
        self._theirs.close()
        self.crash_socket.close()
        os.close(self._status_fd)
        if self.output is not None:
            self.output.close()
            # `log` leads back to this link. The garbage collector would free such a cycle too late,
            # because links have large buffers.
            self.output = None
        if self.has_started:
            os.close(self.pidfd)
            self.pidfd = -1
