"""What the supervisor's messages mean for jobs and their futures. Runs in the reader thread."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
from collections.abc import Callable

from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.poison import PoisonedKeys
from compilepool.client.session.processes import Staff
from compilepool.client.session.questions import Dumps
from compilepool.client.session.supervisor_process import SupervisorProcess
from compilepool.errors import CompilePoolError
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.text import describe
from compilepool.wire.channel import handle_each, refuse
from compilepool.wire.failure import Cause, Failure
from compilepool.wire.messages import Kind, Message, ProtocolError, Readiness, read_json
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.pool_view import PoolView
from compilepool.wire.serializers import Serializer
from compilepool.wire.usage import Usage, read_usage

if TYPE_CHECKING:
    from compilepool.client.session.crash_keeper import CrashKeeper

_log = logging.getLogger(__name__)

_WARM_UP = "warm_up"  # what errors call it, where they name a job

_IDLE_MS = 200
"""Nothing is heard for so long: then there is time for what is not urgent."""


class Inbox:
    """Handles the messages of a pool's supervisors.

    Messages about jobs that are not in the table are ignored: they were cancelled meanwhile.

    Args:
        jobs: the table.
        serializer: the user's, or None.
        dumps: who is told what jobs do.
        staff: who is told how the processes are.
        send: sends a message to the supervisor; called under the lock of `jobs`.
        send_held: sends it the jobs that were held back because it had enough of them.
    """

    def __init__(
        self,
        jobs: UnfinishedCalls,
        serializer: Serializer | None,
        dumps: Dumps,
        staff: Staff,
        send: Callable[[Message], object],
        send_held: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._send = send
        self._send_held = send_held
        self._serializer = serializer
        self._dumps = dumps
        self._staff = staff
        self._warned: set[str] = set()
        self.keeper: CrashKeeper | None = None
        """Makes crash folders; None: there are none."""
        self.poisoned = PoisonedKeys()
        self.is_in_callback = False
        """Whether the reader runs callbacks of a future."""
        self.idle_memory = 0
        """Bytes that a worker takes that has no job; 0 if that is not known yet."""

    def is_keeping_here(self) -> bool:
        """Whether the thread that calls this makes crash folders."""
        return self.keeper is not None and self.keeper.is_here()

    def wait_for_folders(self, timeout_s: float) -> None:
        """Wait until no crash folder is being made."""
        if self.keeper is not None:
            self.keeper.wait(timeout_s)

    def read_from(self, supervisor: SupervisorProcess) -> None:
        """Handle a supervisor's messages until it is gone. Raises `ProtocolError`."""
        poll = select.poll()
        poll.register(supervisor.channel.fileno(), select.POLLIN)
        # Some other process may hold a copy of the supervisor's socket, and so hide its end.
        poll.register(supervisor.pidfd, select.POLLIN)
        patience_ms: int | None = _IDLE_MS
        while True:
            # What was held back while the messages below were handled, which nothing else may wake
            # us up for.
            self._send_held()
            events = poll.poll(patience_ms)
            if not events:
                patience_ms = None
                _import_rest()
            is_dead = any(fd == supervisor.pidfd for fd, _ in events)
            self._send_held()  # before all else: workers may wait for it
            while messages := supervisor.channel.receive(wait=False):
                handle_each(messages, self._handle)
                del messages  # a result must not live on here
                if not is_dead:
                    break  # is there more? `poll` tells
            else:
                if messages is None or is_dead:
                    return

    def _handle(self, message: Message) -> None:
        """Handle a message, and take over its descriptors. Raises `ProtocolError`."""
        kind = message.kind
        if kind is Kind.RESULT:
            self._ended(message)
        elif kind is Kind.FAILED:
            self._fail(message)
        elif kind is Kind.DUMPED:
            if not lacks_descriptor(message):
                from compilepool.wire.job_snapshot import JobSnapshot

                self._dumps.told(message.id, JobSnapshot.of_payload(of_message(message)))
        elif kind is Kind.PEEKED:
            if not lacks_descriptor(message):
                peek = PoolView.of_payload(of_message(message))
                self._staff.peeks.told(message.id, peek)
        elif kind is Kind.NO_WORKERS:
            self._no_workers(message)
        elif kind is Kind.INITIALIZER_FAILED:
            self._initializer_failed(message)
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.WARMTH:
            self._staff.warmth.told(message.id, Readiness(message.flag))
        elif kind is Kind.LOG:
            job = self._jobs.get(message.id)
            if job is not None:
                job.future.record.log = message.body.decode(errors="replace")
        elif kind is Kind.STARTED:
            job = self._jobs.get(message.id)
            if job is not None:
                job.is_running = True
                job.future._mark_running()
        elif kind is Kind.CANCELLED:
            job = self._jobs.pop(message.id)
            if job is not None:
                job.end_cancelled()
        elif kind is Kind.IDLE_MEMORY:
            self.idle_memory = message.id
        elif kind is Kind.LOGGED:
            self._log(message)
        else:
            refuse(message, "from a supervisor")

    def _ended(self, message: Message) -> None:
        usage, payload_at = _read_usage(message)
        payload = None if lacks_descriptor(message) else of_message(message, payload_at)
        job = self._jobs.pop(message.id, close=False)
        if job is not None:
            if usage.started:
                self.poisoned.has_run(job.terms.key)
            self._resolve(job, usage, message.flag, payload)
            self._jobs.reuse(job.payload)  # last: a large one takes its time
        elif payload is not None:
            payload.close()

    def _log(self, message: Message) -> None:
        body = read_json(message.body)
        source, text = str(body.get("source")), str(body.get("text"))
        if message.flag >= logging.WARNING:
            if text in self._warned:  # a new supervisor finds the same again
                return
            self._warned.add(text)
        logging.getLogger(source).log(message.flag, "%s", text)

    def _no_workers(self, message: Message) -> None:
        if not lacks_descriptor(message):
            error = outcomes.of_failure(Failure.of_message(message), _WARM_UP)
            self._staff.warmth.failed(message.id, error)

    def _initializer_failed(self, message: Message) -> None:
        if not lacks_descriptor(message):
            payload = of_message(message)
            _, error = outcomes.resolve(message.flag, payload, _WARM_UP, self._serializer)
            error = error or CompilePoolError("the initializer failed")
            self._staff.warmth.failed(message.id, error)

    def _fail(self, message: Message) -> None:
        failure = Failure.of_message(message)
        keeper = self.keeper if failure.cause is Cause.CRASH else None
        job = self._jobs.pop(message.id, close=keeper is None)
        if job is None:
            return
        job.future.record._note(failure.usage)
        if keeper is not None:
            keeper.keep(job, failure)
            return
        error = outcomes.of_failure(failure, job.name, job.future.record.log)
        self._end(job, lambda error: self.end_failed(job, failure, error), error)

    def end_failed(self, job: Call, failure: Failure, error: CompilePoolError) -> None:
        """End the future of a job, which is not in the table any more. Any thread.

        If its key is poisoned by that, so end those that wait of the same key.
        """
        waiting: list[tuple[int, Call]] = []
        if failure.cause is Cause.CRASH:
            is_own_doing = not failure.is_from_outside
            if is_own_doing and self.poisoned.has_crashed(job.terms.key, error):
                with self._jobs.lock:
                    waiting = self._jobs.pop_waiting(job.terms.key)
                    with contextlib.suppress(OSError):  # then they run, and nobody hears of it
                        for id, _ in waiting:
                            self._send(Message(Kind.CANCEL, id))
        # They first: a callback of the job's own may wait for them.
        for _, other in waiting:
            reason = self.poisoned.error(other.terms.key, other.name)
            # The key may have been forgotten just now.
            other.end_with_error(reason or error)
        job.end_with_error(error)

    def _resolve(self, job: Call, usage: Usage, outcome: int, payload: Payload | None) -> None:
        error: BaseException | None
        try:
            job.future.record._note(usage)
            if payload is None:
                text = "this process or its supervisor has too many open files; see `ulimit -n`"
                raise OSError(errno.EMFILE, text)
            log = job.future.record.log
            result, error = outcomes.resolve(outcome, payload, job.name, self._serializer, log)
        except Exception as reason:  # noqa: BLE001 - whatever it is, the job must end
            what = f"job {job.name!r} has ended, but its outcome could not be read here"
            error = CompilePoolError(f"{what}: {describe(reason)}")
        if error is not None:
            self._end(job, job.end_with_error, error)
        else:
            self._end(job, job.end_with_result, result)

    def _end(self, job: Call, end: Callable[[Any], None], outcome: Any) -> None:
        """End a future here, where a callback may take long."""
        if not job.future._done_callbacks:
            end(outcome)
            return
        self.is_in_callback = True
        self._send_held()
        try:
            end(outcome)
        finally:
            self.is_in_callback = False


def _import_rest() -> None:
    """Import what failures need, while nobody waits: later there may be no descriptor for it."""
    with contextlib.suppress(Exception):  # it would be imported when it is needed
        import compilepool.client.crashes.crash_folder
        import compilepool.client.reports.errors
        import compilepool.client.session.crash_keeper
        import compilepool.errors.crashed  # noqa: F401 - to have them loaded


def _read_usage(message: Message) -> tuple[Usage, int]:
    try:
        return read_usage(message)
    except ProtocolError as error:
        refuse(message, str(error))
