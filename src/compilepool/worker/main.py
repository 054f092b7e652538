"""The main loop of a worker: it runs the initializer, then one job after the other."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable

from compilepool.any_process.phases import report_on, take_phases
from compilepool.light_typing import Any, NamedTuple, NoReturn
from compilepool.linux.proc import smaps_rollup
from compilepool.wire.channel import Channel, close_all
from compilepool.wire.messages import HAS_OUTPUT, Form, Kind, Level, Message, Outcome, log_message
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.serializers import Serializer, load_payload
from compilepool.wire.spares import Spares
from compilepool.wire.status_page import LONG_TEARDOWN_S, StatusPage
from compilepool.wire.submission import read_job
from compilepool.wire.usage import Usage, phases_text, result_message
from compilepool.wire.worker_start import WorkerFds, WorkerOrders
from compilepool.worker.bootstrap import exit_in_order
from compilepool.worker.execution import environment, raised, run_job, unreceived
from compilepool.worker.leftovers import Leftovers
from compilepool.worker.loaded_files import tell_loaded_files
from compilepool.worker.meter import SHORT_S, Meter
from compilepool.worker.multiprocessing_identity import use_authkey
from compilepool.worker.output_capture import OutputCapture
from compilepool.worker.random_state import start_anew
from compilepool.worker.surroundings import Surroundings

_LAST_STANDARD_FD = 2
_FREE_FD = 3
_SHORTEST_FORK_S = 0.00002  # a fork takes longer, and asking for the PID each time would tell
_MAX_SPARES = 2  # one is read while the next is written


class Startup(NamedTuple):
    """What the client sends once for all workers.

    Attributes:
        serializer: the user's serializer for calls and results; None for pickle and cloudpickle.
        initializer: the function that every worker calls before its first job; None if there is
            none.
        initargs: the arguments of the initializer.
    """

    serializer: Serializer | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]


def work(channel: Channel, fds: WorkerFds, orders: WorkerOrders) -> NoReturn:
    """Run jobs until the supervisor closes the link, then exit.

    Args:
        channel: the link to the supervisor.
        fds: the worker's descriptors; `channel` has the socket among them.
        orders: the settings of this worker.
    """
    output = OutputCapture(fds.outputs)
    status = StatusPage(fds.status)
    os.close(fds.status)
    try:
        _serve(channel, status, output, fds.startup, orders)
    except ConnectionError:
        os._exit(1)  # the supervisor is dead, and this process is about to be killed
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTSOCK):
            print("compilepool: a job closed its worker's descriptors", file=sys.stderr)
            os._exit(1)
        raise
    output.flush()
    output.restore()
    exit_in_order()


def _serve(
    channel: Channel,
    status: StatusPage,
    output: OutputCapture,
    startup_fd: int | None,
    orders: WorkerOrders,
) -> None:
    startup = _initialize(channel, startup_fd)
    if startup is None:
        return
    output.flush()
    channel.send(Message(Kind.READY, _private_memory() if orders.tells_idle_memory else 0))
    report_on(status)
    jobs = _Jobs(channel, status, output, startup.serializer, orders)
    while messages := channel.receive():
        for message in messages:
            jobs.run(message)


class _Jobs:
    """Runs one job after the other.

    Args:
        channel: the link to the supervisor.
        status: the worker's status page.
        output: sends the output of each job to the supervisor.
        serializer: the user's serializer, or None.
        orders: the settings of this worker.
    """

    def __init__(
        self,
        channel: Channel,
        status: StatusPage,
        output: OutputCapture,
        serializer: Serializer | None,
        orders: WorkerOrders,
    ) -> None:
        self._channel = channel
        self._status = status
        self._ended = status.ended
        self._output = output
        self._serializer = serializer
        self._max_memory = orders.max_memory
        self._tells_files = orders.tells_files
        self._pid = os.getpid()
        self._meter = Meter()
        self._spares = Spares(_MAX_SPARES)
        self._surroundings = Surroundings(output)
        self._leftovers = Leftovers(status)
        self._remains: list[Any] = []
        """The call and the result of the present job, until they are torn down."""

    def run(self, message: Message) -> None:
        """Run a job, send its RESULT, and then tear down what the job has left."""
        output = self._output
        if message.fds and min(message.fds) <= _LAST_STANDARD_FD:
            message = self._moved(message)
        output.begin()
        started = self._status.begin(message.id, self._meter.begin())
        self._surroundings.since = started
        try:
            outcome, payload = self._outcome(message)
        except BaseException as error:  # noqa: BLE001 - by the handler of a timer that still runs
            self._surroundings.restore()
            outcome, payload = raised(error)
        if not output.flush():
            self._surroundings.mend_streams()
        if os.getpid() != self._pid:
            # This is a child that the job forked, and that returned from the job's function.
            os._exit(0)
        ended = time.monotonic()
        usage = Usage(started, ended, *self._meter.end(ended - started), self._pid)
        if phases := take_phases():
            usage = usage._replace(phases=phases_text(phases))
        if self._tells_files:
            # First: whoever gets the result may change a file at once.
            tell_loaded_files(self._channel)
        flag = outcome | HAS_OUTPUT if output.has_unread() else outcome
        self._channel.send(result_message(message.id, flag, payload, usage))
        sent = time.monotonic()
        self._ended[0] = sent
        try:
            self._remains.clear()  # destructors may do anything, even end this process
        except BaseException:  # noqa: BLE001 - by a signal's handler, which the job has installed
            self._remains.clear()
        output.flush_python()
        self._ended[0] = 0.0
        took = time.monotonic() - sent
        if took > _SHORTEST_FORK_S and os.getpid() != self._pid:
            os._exit(0)  # a child that a destructor forked
        if ended - started + took > SHORT_S or self._leftovers.may_have_changed:
            self._leftovers.note()
        if took > SHORT_S:
            self._has_torn_down(took)
        elif self._max_memory:
            self._tell_memory()
        if payload.fd > _LAST_STANDARD_FD:
            self._spares.put(payload.fd)
        elif payload.fd >= 0:
            os.close(payload.fd)
            self._surroundings.reopen_fds()

    def _outcome(self, message: Message) -> tuple[Outcome, Payload]:
        if lacks_descriptor(message):
            return unreceived()
        settings, call_at = read_job(message)
        call = of_message(message, call_at)
        restore = self._surroundings.restore
        if settings.authkey:
            use_authkey(settings.authkey)
        if settings.seed is not None:
            start_anew(settings.seed)
        if not settings.env:
            return run_job(call, self._serializer, self._remains, self._spares, restore)
        with environment(settings.env):
            return run_job(call, self._serializer, self._remains, self._spares, restore)

    def _has_torn_down(self, took_s: float) -> None:
        """What a job has left was torn down, and that took long."""
        self._meter.skip()
        if not (self._max_memory and self._tell_memory()) and took_s > LONG_TEARDOWN_S:
            self._channel.send(Message(Kind.TORN_DOWN))

    def _tell_memory(self) -> bool:
        """Tell the supervisor if this worker has more memory than it may keep."""
        too_much = self._meter.own_memory(self._max_memory)
        if too_much:
            self._channel.send(Message(Kind.TORN_DOWN, too_much))
        return bool(too_much)

    def _moved(self, message: Message) -> Message:
        """The message of a job, with descriptors whose numbers `OutputCapture` does not use.

        The job before has closed standard descriptors.
        """
        fds = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FREE_FD) for fd in message.fds)
        close_all(message.fds)
        self._surroundings.reopen_fds()
        return message._replace(fds=fds)


def _initialize(channel: Channel, startup_fd: int | None) -> Startup | None:
    """Unpickle what all workers start with, and run the initializer.

    Returns:
        None if the user's code raised. The supervisor has then been told.
    """
    startup = Startup(None, None, ())
    try:
        if startup_fd is not None:
            startup = Startup(*load_payload(Payload(Form.MEMFD, b"", startup_fd)))
        if startup.initializer is not None:
            start = time.monotonic()
            startup.initializer(*startup.initargs)
            took = f"the initializer took {time.monotonic() - start:.3g} s"
            channel.send(log_message(Level.DEBUG, __name__, took))
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        outcome, payload = raised(error)
        channel.send(payload.message(Kind.INITIALIZER_FAILED, 0, outcome))
        return None
    return startup


def _private_memory() -> int:
    """The bytes of memory that this process shares with no other; 0 if the kernel does not tell."""
    try:
        return smaps_rollup()["Private_Dirty"]
    except (OSError, ValueError):
        return 0
