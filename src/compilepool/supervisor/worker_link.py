"""The supervisor's view of one worker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque

from compilepool.supervisor.crash_file import CrashFile
from compilepool.wire.channel import Channel, close_messages
from compilepool.wire.kernel import send_signal
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload


class WorkerLink:
    """A worker's socket, pidfd and crash file.

    The worker's end of the socket stays open here as well: what is sent can be taken back from it
    until the worker has read it. The kernel sees to it that only one of the two gets a job.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.channel, theirs = Channel.pair()
        self._theirs = Channel(theirs)
        self.crash_file = CrashFile(f"worker {number}")
        self._unsent: deque[tuple[int, Payload]] = deque()
        self._pidfd = -1
        self._is_doomed = False
        self.trouble = ""
        """What went wrong with it, if the supervisor knows."""
        self.is_ready = False
        self.importing = ""
        """The module that it preloads by itself just now."""

    @property
    def fds(self) -> tuple[int, int]:
        """What the worker needs: its socket and its crash file."""
        return self._theirs.fileno(), self.crash_file.fd

    def started(self, pidfd: int) -> None:
        """The worker's process exists. Takes over `pidfd`."""
        self._pidfd = pidfd
        if self._is_doomed:
            self.kill()

    def kill(self) -> None:
        """Kill the worker, or have it killed as soon as it exists."""
        self._is_doomed = True
        if self._pidfd >= 0:
            send_signal(self._pidfd, signal.SIGKILL)

    def send_job(self, number: int, payload: Payload) -> bool:
        """Put a job into the worker's socket.

        Returns:
            As `send_rest`.
        """
        self._unsent.append((number, payload))
        return self.send_rest()

    def send_rest(self) -> bool:
        """Put what is left into the worker's socket.

        There is always room: a worker has two jobs at most, of which only small ones go inline.
        But where the descriptors in flight of all the user's processes are more than the limit of
        open files, unix(7), the kernel takes no more for now. It does not tell when it would.

        Returns:
            False if jobs are left for later.
        """
        while self._unsent:
            number, payload = self._unsent.popleft()
            message = payload.message(Kind.JOB, number)
            try:
                is_sent = self.channel.send(message, wait=False)
            finally:
                for fd in set(message.fds) - {payload.fd}:
                    os.close(fd)
            if not is_sent:
                self._unsent.appendleft((number, payload))
                return False
        return True

    def take_back(self) -> list[int]:
        """Take the jobs that the worker has not read from its socket; returns their numbers."""
        jobs = []
        while messages := self._theirs.receive(wait=False):
            close_messages(messages)
            jobs += [message.id for message in messages if message.kind is Kind.JOB]
        jobs += [number for number, _ in self._unsent]
        self._unsent.clear()
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
        """Close all descriptors. The channel's must not be watched any more."""
        self.channel.close()
        self._theirs.close()
        self.crash_file.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
