"""Reads the supervisor's messages, and ends futures by them. Runs in the reader thread."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
from collections.abc import Callable

from compilepool.client.connection.connection import SupervisorConnection
from compilepool.client.future import CompileFuture, has_callbacks, mark_running
from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.failed_calls import FailedCalls
from compilepool.client.session.processes import Processes
from compilepool.client.session.questions import Dumps, Views
from compilepool.client.session.sending import SupervisorLink
from compilepool.errors import CompilePoolError
from compilepool.light_typing import Any
from compilepool.linux.polling import READABLE, poll
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.observe.record import note_shared, note_usage
from compilepool.text import describe
from compilepool.wire.channel import handle_each, refuse
from compilepool.wire.failure import Failure, KeyCrash
from compilepool.wire.messages import (
    OUTCOME_BITS,
    Kind,
    Message,
    ProtocolError,
    Readiness,
    check,
    read_json,
)
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message, unpack_json
from compilepool.wire.pool_view import PoolView
from compilepool.wire.serializers import Serializer
from compilepool.wire.usage import Usage, read_usage

_WARM_UP = "warm_up"  # stands for the job's name in errors of a warm-up

_ANSWER_MS = 60_000
"""Within this time from its start, a supervisor answers; it takes 20 ms on an idle machine."""

_IDLE_MS = 200
"""After such a silence there is time for what is not urgent."""

_LOOK_MS = 5000
"""How often to look whether the program has closed our descriptors, as some close all they find.

`poll` looks up the numbers again when it wakes up, and does not tell of what has lost its number.
"""


class Receiver:
    """Handles the messages of a pool's supervisors.

    Messages about calls that are not in the table are ignored: their jobs were cancelled meanwhile.

    Args:
        calls: the table.
        link: the way to the supervisor.
        failed: ends the calls that have failed.
        dumps: gets the answers about jobs.
        views: gets the answers about the pool.
        processes: is told how the workers are.
        serializer: the user's, or None.

    Attributes:
        resolve: makes a result or an exception of a RESULT, see `outcomes.resolve`.
        on_start: called with the future of each job that begins; None: nobody wants to know.
    """

    def __init__(
        self,
        calls: UnfinishedCalls,
        link: SupervisorLink,
        failed: FailedCalls,
        dumps: Dumps,
        views: Views,
        processes: Processes,
        serializer: Serializer | None,
    ) -> None:
        self._calls = calls
        self._link = link
        self._failed = failed
        self._dumps = dumps
        self._views = views
        self._processes = processes
        self._serializer = serializer
        self.resolve: Callable[..., tuple[Any, BaseException | None]] = outcomes.resolve
        self.on_start: Callable[[CompileFuture[Any]], object] | None = None
        self._warned: set[str] = set()
        self._taken: Call | None = None
        """The call that was taken from the table to be ended, while that is not done."""

    def read_from(self, supervisor: SupervisorConnection) -> None:
        """Handle a supervisor's messages until it is gone.

        Raises:
            ProtocolError: it sends what no supervisor sends.
            TimeoutError: it does not even answer once.
            OSError: the program has closed the socket to it.
        """
        events = poll()
        events.register(supervisor.channel.fileno(), READABLE)
        # Some other process may hold a copy of the supervisor's socket, and so hide its end.
        events.register(supervisor.pidfd, READABLE)
        patience_ms = _IDLE_MS
        has_answered = False
        silent_ms = 0  # a clock would go on while this process is stopped
        while True:
            # Calls may have been held back while the messages below were handled, and nothing else
            # may wake this thread up for them.
            self._link.flush()
            supervisor.channel.check_is_open()
            ready = events.poll(patience_ms)
            if ready:
                has_answered = True
            elif has_answered:
                if patience_ms == _IDLE_MS:
                    _import_rest()
                patience_ms = _LOOK_MS
            else:
                silent_ms += _IDLE_MS
                if silent_ms > _ANSWER_MS:
                    raise TimeoutError(f"it has not answered within {_ANSWER_MS / 1000:g} s")
            is_dead = any(fd == supervisor.pidfd for fd, _ in ready)
            self._link.flush()  # before all else: workers may wait for it
            supervisor.channel.check_is_open()
            while messages := supervisor.channel.receive(wait=False):
                try:
                    handle_each(messages, self._handle)
                except BaseException as error:
                    self._end_taken(error)
                    raise
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
        elif kind is Kind.VIEWED:
            if not lacks_descriptor(message):
                self._views.told(message.id, PoolView.of_payload(of_message(message)))
        elif kind is Kind.NO_WORKERS:
            self._no_workers(message)
        elif kind is Kind.DIED_IDLE:
            if not lacks_descriptor(message):
                self._failed.died_idle(Failure.of_message(message))
        elif kind is Kind.INITIALIZER_FAILED:
            self._initializer_failed(message)
        elif kind in (Kind.KEY_CRASHED, Kind.KEY_RAN):
            if not lacks_descriptor(message):
                self._hear_of_key(kind, of_message(message))
        elif message.fds:
            refuse(message, "with descriptors")
        elif kind is Kind.CONFIGURED:
            pass  # it has answered
        elif kind is Kind.WARMTH:
            self._processes.warmth.told(message.id, Readiness(message.flag))
        elif kind is Kind.LOG:
            call = self._calls.get(message.id)
            if call is not None:
                call.future.record.log = message.body.decode(errors="replace")
        elif kind is Kind.STARTED:
            self._started(message.id)
        elif kind is Kind.CANCELLED:
            call = self._taken = self._calls.pop(message.id)
            if call is not None:
                call.end_cancelled()
                self._taken = None
        elif kind is Kind.IDLE_MEMORY:
            self._processes.idle_memory = message.id
        elif kind is Kind.LOGGED:
            self._log_for(message)
        else:
            refuse(message, "from a supervisor")

    def _started(self, id: int) -> None:
        call = self._calls.get(id)
        if call is not None:
            call.is_running = True
            mark_running(call.future)
            if self.on_start is not None:
                self.on_start(call.future)

    def _hear_of_key(self, kind: Kind, payload: Payload) -> None:
        """A job of another process has ended."""
        if kind is Kind.KEY_CRASHED:
            self._failed.key_crashed(KeyCrash.of_payload(payload))
        else:
            self._failed.poisoned.has_run(unpack_json(payload, _checked_key, "a key"))

    def _end_taken(self, error: BaseException) -> None:
        """End the call whose end could not be handled. Its job is not run again."""
        call, self._taken = self._taken, None
        if call is not None and not call.future.done():
            call.payload.close()
            what = f"job {call.name!r} has ended, but its outcome could not be handled here"
            call.end_with_error(CompilePoolError(f"{what}: {describe(error)}"))

    def _ended(self, message: Message) -> None:
        usage, payload_at = _read_usage(message)
        payload = None if lacks_descriptor(message) else of_message(message, payload_at)
        call = self._taken = self._calls.pop(message.id, close=False)
        if call is not None:
            if usage.started:
                self._failed.poisoned.has_run(call.terms.key)
            note_shared(call.future.record, message.flag)
            self._resolve(call, usage, message.flag & OUTCOME_BITS, payload)
            self._taken = None
            self._calls.reuse(call.payload)  # last: a large one takes its time
        elif payload is not None:
            payload.close()

    def _log_for(self, message: Message) -> None:
        """Log what a process of the pool has to say."""
        body = read_json(message.body)
        source, text = str(body.get("source")), str(body.get("text"))
        if message.flag >= logging.WARNING:
            if text in self._warned:  # a new supervisor finds the same again
                return
            self._warned.add(text)
        QuietLogger(source).log(message.flag, "%s", text)

    def _no_workers(self, message: Message) -> None:
        if not lacks_descriptor(message):
            error = outcomes.of_failure(Failure.of_message(message), _WARM_UP)
            self._processes.warmth.failed(message.id, error)

    def _initializer_failed(self, message: Message) -> None:
        if not lacks_descriptor(message):
            payload = of_message(message)
            _, error = outcomes.resolve(message.flag, payload, _WARM_UP, self._serializer)
            error = error or CompilePoolError("the initializer failed")
            self._processes.warmth.failed(message.id, error)

    def _fail(self, message: Message) -> None:
        try:
            failure = Failure.of_message(message)
        except (OSError, ImportError) as reason:  # no descriptor to import what reads it
            self._end_unread(message.id, reason)
            return
        is_repeated = bool(message.flag)
        gets_folder = self._failed.gets_folder(failure)
        call = self._taken = self._calls.pop(message.id, close=not gets_folder)
        if call is None:
            return
        note_usage(call.future.record, failure.usage)
        if gets_folder:
            self._failed.keep(call, failure)
        else:
            error = outcomes.of_failure(failure, call.name, call.future.record.log)
            counts = not is_repeated
            end = functools.partial(self._failed.end, call, failure, counts=counts)
            self._end(call, end, error)
        self._taken = None

    def _end_unread(self, id: int, reason: Exception) -> None:
        call = self._taken = self._calls.pop(id)
        if call is not None:
            what = f"job {call.name!r} has failed, but why could not be read here"
            self._end(call, call.end_with_error, CompilePoolError(f"{what}: {describe(reason)}"))
        self._taken = None

    def _resolve(self, call: Call, usage: Usage, outcome: int, payload: Payload | None) -> None:
        error: BaseException | None
        try:
            note_usage(call.future.record, usage)
            if payload is None:
                text = "this process or its supervisor has too many open files; see `ulimit -n`"
                raise OSError(errno.EMFILE, text)
            log = call.future.record.log
            result, error = self.resolve(outcome, payload, call.name, self._serializer, log)
        except Exception as reason:  # noqa: BLE001 - whatever it is, the call must end
            what = f"job {call.name!r} has ended, but its outcome could not be read here"
            error = CompilePoolError(f"{what}: {describe(reason)}")
        if error is not None:
            self._end(call, call.end_with_error, error)
        else:
            self._end(call, call.end_with_result, result)

    def _end(self, call: Call, end: Callable[[Any], None], outcome: Any) -> None:
        """End a call in this thread, which a callback of the user's may hold up for long."""
        if not has_callbacks(call.future):
            end(outcome)
            return
        self._link.is_reader_busy = True
        self._link.flush()
        try:
            end(outcome)
        finally:
            self._link.is_reader_busy = False


def _import_rest() -> None:
    """Import what failures need while nobody waits: later there may be no descriptor to read it."""
    with contextlib.suppress(Exception):  # then it is imported when it is needed
        import compilepool.client.crashes.crash_folder
        import compilepool.client.reports.errors
        import compilepool.client.session.crash_keeper
        import compilepool.errors.crashed  # noqa: F401 - to have them loaded


def _checked_key(value: object) -> str:
    check(isinstance(value, str))
    return str(value)


def _read_usage(message: Message) -> tuple[Usage, int]:
    try:
        return read_usage(message)
    except ProtocolError as error:
        refuse(message, str(error))
