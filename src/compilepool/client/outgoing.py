"""What a session sends to its supervisor."""

from __future__ import annotations

import errno
from collections.abc import Callable

from compilepool.client.jobs import Job, JobTable
from compilepool.client.launcher import MAX_HELD, SMALL, SupervisorProcess
from compilepool.wire.channel import close_all
from compilepool.wire.light_typing import Literal
from compilepool.wire.messages import Message
from compilepool.wire.submission import submit_message

PLENTY_FOR_WORKER = 16
"""Jobs. If there are more than that for each worker, the supervisor can do without the next."""


class Outgoing:
    """Sends to the supervisor that there is. Where there is none, or a dead one, nothing is sent.

    Under the lock of the jobs, but for `send_held`.

    Args:
        jobs: the unfinished jobs.
        max_workers: how many workers may have jobs at once.
        supervisor: tells the supervisor, if there is one.
        is_in_callback: tells whether the thread that reads from it runs callbacks of a future.
    """

    def __init__(
        self,
        jobs: JobTable,
        max_workers: int,
        supervisor: Callable[[], SupervisorProcess | None],
        is_in_callback: Callable[[], bool],
    ) -> None:
        self._jobs = jobs
        self._plenty = MAX_HELD + PLENTY_FOR_WORKER * max_workers
        self._supervisor = supervisor
        self._is_in_callback = is_in_callback
        self._are_alike = True  # the priorities of all jobs until now

    def send(self, message: Message, *, hold: bool = False) -> bool:
        """False if the supervisor is gone; the reader sees that as well, and sends jobs again.

        Args:
            message: the message. Its descriptors stay open here.
            hold: whether it may wait for others, see `SupervisorProcess.hold`.

        Raises:
            OSError: as `SupervisorProcess.send`, but not if the program has closed our descriptors.
        """
        supervisor = self._supervisor()
        if supervisor is None:
            return False
        try:
            return supervisor.hold(message) if hold else supervisor.send(message)
        except OSError as error:
            return _has_lost_descriptors(supervisor, error)

    def send_job(self, id: int, job: Job) -> bool:
        """`send` for a job, which may wait for others if that makes no difference to it."""
        message = submit_message(id, job.name, job.payload, job.terms)
        self._are_alike &= not job.terms.priority
        if not message.fds:
            is_small = len(message.body) <= SMALL
            is_sent = self.send(message, hold=is_small and self._may_hold())
            if not self._may_hold():  # the reader may have ended all others meanwhile, and sleep
                self.send_held()
            return is_sent
        try:
            return self.send(message)
        finally:
            close_all(set(message.fds) - {job.payload.fd})

    def send_held(self) -> None:
        """Send what waits for others. Any thread."""
        supervisor = self._supervisor()
        if supervisor is None or not supervisor.has_held:
            return
        with self._jobs.lock:
            if supervisor is self._supervisor():
                try:
                    supervisor.flush()
                except OSError as error:
                    _has_lost_descriptors(supervisor, error)

    def _may_hold(self) -> bool:
        """Whether a job may wait here for others, because it would wait anyway.

        For when the next one can begin, another one has ended, and that wakes the reader up, unless
        that runs a callback of the user's.
        """
        return self._are_alike and len(self._jobs) > self._plenty and not self._is_in_callback()


def _has_lost_descriptors(supervisor: SupervisorProcess, error: OSError) -> Literal[False]:
    """Raises the error if it is another one."""
    if error.errno not in (errno.EBADF, errno.ENOTSOCK):
        raise error
    # The program has closed our descriptors. The reader, which waits for them, does not notice
    # until the supervisor dies; then it starts another.
    supervisor.kill()
    return False
