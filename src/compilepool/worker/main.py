"""The worker's life: initializer, then jobs until there are no more."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from compilepool.wire.channel import Channel
from compilepool.wire.messages import Form, Kind, Message
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message
from compilepool.wire.serializers import Serializer, load_payload
from compilepool.wire.status import StatusPage
from compilepool.wire.worker_fds import WorkerFds
from compilepool.worker.bootstrap import exit_in_order
from compilepool.worker.jobs import raised, run_job, unreceived
from compilepool.worker.output import OutputCapture
from compilepool.worker.phases import report_on


class Startup(NamedTuple):
    """What the client sends once for all workers."""

    serializer: Serializer | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]


def work(channel: Channel, fds: WorkerFds) -> NoReturn:
    """Work until the supervisor wants no more, then exit.

    Args:
        channel: the link to the supervisor.
        fds: the other descriptors.
    """
    output = OutputCapture(fds.outputs)
    status = StatusPage(fds.status)
    os.close(fds.status)
    try:
        _serve(channel, status, output, fds.startup)
    except ConnectionError:
        os._exit(1)  # the supervisor is dead, and we are about to be killed
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTSOCK):
            print("compilepool: a job closed its worker's descriptors", file=sys.stderr)
            os._exit(1)
        raise
    output.flush()
    output.restore()
    exit_in_order()


def _serve(
    channel: Channel, status: StatusPage, output: OutputCapture, startup_fd: int | None
) -> None:
    startup = Startup(None, None, ())
    try:
        if startup_fd is not None:
            startup = Startup(*load_payload(Payload(Form.MEMFD, b"", startup_fd)))
        if startup.initializer is not None:
            startup.initializer(*startup.initargs)
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        outcome, payload = raised(error)
        channel.send(payload.message(Kind.INITIALIZER_FAILED, 0, outcome))
        return
    output.flush()
    channel.send(Message(Kind.READY))
    report_on(status)
    pid = os.getpid()
    while messages := channel.receive():
        for message in messages:
            status.begin(message.id)
            output.begin()
            if lacks_descriptor(message):
                outcome, payload = unreceived()
            else:
                outcome, payload = run_job(of_message(message), startup.serializer)
            output.flush()
            if os.getpid() != pid:
                os._exit(0)  # a child that the job forked and that returned from it
            channel.send(payload.message(Kind.RESULT, message.id, outcome))
            payload.close()
