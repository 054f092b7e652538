"""What the supervisor's messages mean for jobs and their futures. Runs in the reader thread."""

from __future__ import annotations

import logging

from compilepool.client import failures
from compilepool.client.jobs import Job, JobTable
from compilepool.errors import CompilePoolError
from compilepool.wire.channel import refuse
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Kind, Message, ProtocolError
from compilepool.wire.payloads import Payload, of_message
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
            payload = of_message(message)
            job = self._jobs.pop(message.id)
            if job is None:
                payload.close()
            else:
                self._resolve(job, message.flag, payload)
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.STARTED:
            with self._jobs.lock:
                job = self._jobs.get(message.id)
                if job is not None:
                    job.future._mark_running()
        elif kind is Kind.FAILED:
            failure = Failure.of_message(message)
            job = self._jobs.pop(message.id)
            if job is not None:
                job.future._end_with_error(failures.error_of(failure, job.name))
        elif kind is Kind.CANCELLED:
            with self._jobs.lock:
                job = self._jobs.pop(message.id)
                if job is not None:
                    job.future._mark_cancelled()
            if job is not None:
                job.future._call_back()
        elif kind is Kind.WARNING:
            text = message.body.decode(errors="replace")
            if text not in self._warned:  # a new supervisor finds the same again
                self._warned.add(text)
                _log.warning("%s", text)
        else:
            refuse(message, "from a supervisor")

    def _resolve(self, job: Job, outcome: int, payload: Payload) -> None:
        error: BaseException | None
        try:
            result, error = failures.resolve(outcome, payload, job.name, self._serializer)
        except (ProtocolError, OSError, MemoryError) as reason:
            error = CompilePoolError(f"job {job.name!r}: its result could not be read: {reason}")
        if error is not None:
            job.future._end_with_error(error)
        else:
            job.future._end_with_result(result)
