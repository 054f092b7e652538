"""What the supervisor's messages mean for jobs and their futures. Runs in the reader thread."""

from __future__ import annotations

import errno
import logging

from compilepool.client import failures
from compilepool.client.jobs import Job, JobTable
from compilepool.errors import CompilePoolError
from compilepool.wire.channel import refuse
from compilepool.wire.failure import Failure, describe
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.serializers import Serializer

_log = logging.getLogger("compilepool")


class Inbox:
    """Handles the messages of a pool's supervisors.

    Messages about jobs that are not in the table are ignored: they were cancelled meanwhile.
    """

    def __init__(self, jobs: JobTable, serializer: Serializer | None) -> None:
        self._jobs = jobs
        self._serializer = serializer
        self._warned: set[str] = set()

    def handle(self, message: Message) -> None:
        """Handle a message, and take over its descriptors. Raises `ProtocolError`."""
        kind = message.kind
        if kind is Kind.RESULT:
            payload = None if lacks_descriptor(message) else of_message(message)
            job = self._jobs.pop(message.id)
            if job is not None:
                self._resolve(job, message.flag, payload)
            elif payload is not None:
                payload.close()
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.STARTED:
            job = self._jobs.get(message.id)
            if job is not None:
                job.future._mark_running()
        elif kind is Kind.FAILED:
            failure = Failure.of_message(message)
            job = self._jobs.pop(message.id)
            if job is not None:
                job.future._end_with_error(failures.error_of(failure, job.name))
        elif kind is Kind.CANCELLED:
            job = self._jobs.pop(message.id)
            if job is not None:
                job.future._end_cancelled()
        elif kind is Kind.WARNING:
            text = message.body.decode(errors="replace")
            if text not in self._warned:  # a new supervisor finds the same again
                self._warned.add(text)
                _log.warning("%s", text)
        else:
            refuse(message, "from a supervisor")

    def _resolve(self, job: Job, outcome: int, payload: Payload | None) -> None:
        error: BaseException | None
        try:
            if payload is None:
                text = "this process or its supervisor has too many open files; see `ulimit -n`"
                raise OSError(errno.EMFILE, text)
            result, error = failures.resolve(outcome, payload, job.name, self._serializer)
        except Exception as reason:  # noqa: BLE001 - whatever it is, the job must end
            what = f"job {job.name!r} has ended, but its outcome could not be read here"
            error = CompilePoolError(f"{what}: {describe(reason)}")
        if error is not None:
            job.future._end_with_error(error)
        else:
            job.future._end_with_result(result)
