"""Packs the user's objects, and sends them to the supervisor."""

from __future__ import annotations

import errno
from collections.abc import Callable

from compilepool.client.options import PoolOptions
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.supervisor_process import MAX_HELD, SMALL, SupervisorProcess
from compilepool.errors import CompilePoolError, SerializationError
from compilepool.light_typing import Any, Literal
from compilepool.text import describe
from compilepool.wire.channel import close_all
from compilepool.wire.messages import Message
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.serializers import Serializer, dump
from compilepool.wire.spares import Spares
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
        jobs: UnfinishedCalls,
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

    def send_job(self, id: int, job: Call) -> bool:
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


def pack_call(
    name: str,
    call: tuple[Any, ...],
    serializer: Serializer | None,
    spares: Spares | None = None,
) -> Payload:
    """The payload of a job's call.

    Args:
        name: the job's name.
        call: its function, arguments and keyword arguments.
        serializer: the user's, or None.
        spares: memfds that it may be written to.

    Raises:
        SerializationError: it cannot be pickled.
        CompilePoolError: there is no room for it.
    """
    try:
        sections = dump(call, serializer)
    except Exception as error:
        raise SerializationError(
            f"job {name!r} could not be pickled: {describe(error)};"
            " its function and arguments must be picklable, by cloudpickle if not by pickle"
        ) from error
    try:
        return pack(sections, spares=spares)
    except OSError as error:
        raise not_sent(name, error) from error


def pack_startup(options: PoolOptions) -> Payload | None:
    """What every worker starts with (`worker.main.Startup`), in a memfd; None if nothing.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if options.serializer is None and options.initializer is None:
        return None
    parts = (options.serializer, options.initializer, tuple(options.initargs))
    try:
        return pack(dump(parts), inline_limit=-1)
    except Exception as error:
        raise SerializationError(
            f"serializer, initializer or initargs could not be pickled: {describe(error)};"
            " every worker needs a copy of them"
        ) from error


def not_sent(name: str, error: OSError) -> CompilePoolError:
    """The error for a job that the machine's limits keep from being sent."""
    return CompilePoolError(
        f"job {name!r} could not be sent: {error}; see to this process's limits (`ulimit -a`)"
    )
