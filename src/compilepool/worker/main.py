"""The main loop of a worker: it runs the initializer, then one job after the other."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable

from compilepool.any_process.phases import report_on, take_phases
from compilepool.light_typing import Any, NamedTuple, NoReturn
from compilepool.linux.proc import smaps_rollup
from compilepool.wire.channel import Channel
from compilepool.wire.messages import HAS_OUTPUT, Form, Kind, Level, Message, log_message
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.serializers import Serializer, load_payload
from compilepool.wire.spares import Spares
from compilepool.wire.status_page import StatusPage
from compilepool.wire.submission import read_job
from compilepool.wire.usage import Usage, phases_text, result_message
from compilepool.wire.worker_start import WorkerFds, WorkerOrders
from compilepool.worker.bootstrap import exit_in_order
from compilepool.worker.execution import environment, raised, run_job, unreceived
from compilepool.worker.meter import Meter
from compilepool.worker.multiprocessing_identity import use_authkey
from compilepool.worker.output_capture import OutputCapture
from compilepool.worker.random_state import start_anew

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
    pid = os.getpid()
    meter = Meter()
    spares = Spares(_MAX_SPARES)
    while messages := channel.receive():
        for message in messages:
            output.begin()
            started = status.begin(message.id, meter.begin())
            if lacks_descriptor(message):
                outcome, payload = unreceived()
            else:
                settings, call_at = read_job(message)
                call = of_message(message, call_at)
                if settings.authkey:
                    use_authkey(settings.authkey)
                if settings.seed is not None:
                    start_anew(settings.seed)
                if settings.env:
                    with environment(settings.env):
                        outcome, payload = run_job(call, startup.serializer, spares)
                else:
                    outcome, payload = run_job(call, startup.serializer, spares)
            output.flush()
            if os.getpid() != pid:
                # This is a child that the job forked, and that returned from the job's function.
                os._exit(0)
            now = time.monotonic()
            usage = Usage(started, now, *meter.end(now - started), pid)
            if phases := take_phases():
                usage = usage._replace(phases=phases_text(phases))
            if orders.max_memory:
                usage = usage._replace(worker_bytes=meter.own_memory(orders.max_memory))
            flag = outcome | HAS_OUTPUT if output.has_unread() else outcome
            channel.send(result_message(message.id, flag, payload, usage))
            if payload.fd >= 0:
                spares.put(payload.fd)


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
