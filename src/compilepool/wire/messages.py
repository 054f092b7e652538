"""The messages between our processes, and their encoding. Pure functions, no I/O.

A link between two processes is a SOCK_SEQPACKET socket pair. A packet carries one or more messages.
A message is a header of fixed size and a body. Descriptors travel beside the packet (SCM_RIGHTS,
unix(7)) and belong to its messages in order. The supervisor relays bodies without looking into
payloads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from enum import IntEnum

from compilepool.light_typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from types import UnionType

Made = TypeVar("Made")

MAX_PACKET = 128 * 1024
"""The most bytes of a packet. A receiver never allocates more than this for what a peer sends."""

MAX_FDS = 63
"""The most descriptors beside one packet. The kernel allows 253, SCM_MAX_FD in <net/scm.h>."""

_HEADER = struct.Struct("<IBBBBQ")  # body length, kind, flag, form, descriptors, id
_HEADER_SIZE = _HEADER.size
MAX_BODY = MAX_PACKET - _HEADER_SIZE
_REASON_LIMIT = 200  # characters


class ProtocolError(Exception):
    """The peer sent something that no peer of this library sends. The receiver drops the peer."""


class Kind(IntEnum):
    """What a message means. Each comment says what id, flag, body and descriptors hold."""

    # client -> supervisor
    CONFIGURE = 1  # body: payload of a PoolConfig; fds: [startup memfd]; the first message
    SUBMIT = 2  # id: job; body: name and terms, see `submission`, then the payload of the call
    CANCEL = 3  # id: job
    CANCEL_QUEUED = 4
    WARM_UP = 5  # id: any
    SHUTDOWN = 6  # flag: Shutdown
    DUMP = 7  # id: job
    QUIESCE = 8  # flag: whether the fork server stays
    RELOAD = 9
    VIEW = 10  # id: any
    # Each the first message to a shared supervisor.
    JOIN = 11  # body: JSON, see `Joining`; fds: [the client's pidfd]; with CONFIGURE in one packet
    LOOK = 12
    STOP = 13

    # supervisor -> client
    REFUSED = 17  # body: text, why a shared supervisor does not take this client
    # the answer to LOOK and STOP; body: payload of a PoolLook; its last fd: the supervisor's
    # pidfd
    LOOKED = 18
    # the answer to CONFIGURE, the first message; of a shared supervisor, id: its PID; fds: [its
    # pidfd]
    CONFIGURED = 19
    STARTED = 20  # id: job
    # id: job; flag: Outcome, and JOINED or REUSED; body: Usage, then the payload. A worker sends it
    # to the supervisor, too, with the run's id, and may add HAS_OUTPUT to the flag.
    RESULT = 21
    FAILED = 22  # id: job; flag: whether another job of the client got it; body: as DIED_IDLE
    CANCELLED = 23  # id: job
    # id: the PID of the process that logs; flag: Level; body: JSON, the logger's name and the text
    LOGGED = 24
    LOG = 25  # id: job; body: the end of its output; comes before the job's RESULT or FAILED
    DUMPED = 26  # id: job; body: payload of a JobSnapshot
    IDLE_MEMORY = 27  # id: the bytes of memory that an idle worker takes
    WARMTH = 28  # id: the id of the last WARM_UP; flag: Readiness
    NO_WORKERS = 29  # id: the id of the last WARM_UP; body: payload of a Failure
    VIEWED = 30  # id: the id of the VIEW; body: payload of a PoolView
    DIED_IDLE = 31  # body: payload of the Failure of a worker that has died without a job
    # A run has ended that no job of this client has waited for, and that has the key of one that
    # had crashed; or it crashes now.
    KEY_CRASHED = 32  # body: payload of a KeyCrash
    KEY_RAN = 33  # body: the key

    # supervisor -> fork server
    SERVE = 40  # body: payload of a PoolConfig; the first message
    START_WORKER = 41  # id: worker; body: WorkerOrders; fds: WorkerFds

    # fork server -> supervisor; a worker that preloads by itself sends the first three, too
    IMPORTING = 50  # body: module name
    READY = 51  # id: the private bytes of a worker whose orders ask for them, else 0
    PRELOAD_FAILED = 52  # body: JSON {module, text}
    UNSAFE_TO_FORK = 53  # body: text, the reason
    WORKER_STARTED = 54  # id: worker; body: JSON {pid}; fds: [the worker's pidfd]
    WORKER_EXITED = 55  # id: worker; body: JSON {exitcode, peak_bytes, cpu_s} or {error}

    # fork server or worker of a shared pool -> supervisor
    LOADED = 56  # body: payload of a list of `LoadedFile`

    # supervisor -> worker
    JOB = 60  # id: run; body: its settings, see `submission`, then the payload of the call

    # worker -> supervisor -> client
    # flag: Outcome; body: payload; id, to the client only: the id of the last WARM_UP
    INITIALIZER_FAILED = 61

    # worker -> supervisor, after a RESULT: it took long to tear down what the run has left, or the
    # worker has more private memory than it may keep
    TORN_DOWN = 62  # id: the bytes of that memory, else 0


class Readiness(IntEnum):
    """How many of the workers that WARM_UP asked for are ready."""

    NONE = 0
    SOME = 1
    ALL = 2


class Level(IntEnum):
    """The importance of a log message.

    The numbers equal the levels of `logging`, which not every process imports.
    """

    DEBUG = 10
    INFO = 20
    WARNING = 30


class Outcome(IntEnum):
    """How a job ended. It decides what the payload of the job's RESULT holds."""

    RETURNED = 0  # the pickled result
    RAISED = 1  # section 0: JSON {type, traceback}; then the pickled exception
    UNSERIALIZABLE = 2  # section 0: JSON {what, type, reason, traceback}


OUTCOME_BITS = 0x1F
"""The bits of a RESULT's flag that hold its Outcome."""

REUSED = 0x20
"""The flag bit of a RESULT that says: the run had ended before the job was submitted."""

JOINED = 0x40
"""The flag bit of a RESULT that says: the job has joined the run of another job."""

HAS_OUTPUT = 0x80
"""The flag bit of a RESULT that says: when the job ended, some of its output was still unread."""


class Shutdown(IntEnum):
    """What becomes of unfinished jobs when the pool shuts down."""

    DRAIN = 0  # they run
    NOW = 1  # they are killed
    TERMINATE = 2  # those that no worker runs are cancelled, and all workers get SIGTERM


class Form(IntEnum):
    """Where the sections of a payload are; see `payloads`."""

    NONE = 0
    INLINE = 1
    INLINE_MANY = 2
    MEMFD = 3


class Message(NamedTuple):
    """One message. Its holder owns `fds` and closes them."""

    kind: Kind
    id: int = 0
    flag: int = 0
    form: Form = Form.NONE
    body: bytes = b""
    fds: tuple[int, ...] = ()


def json_message(kind: Kind, body: dict[str, Any], *, id: int = 0) -> Message:
    """A message with a JSON object as its body.

    If the object is too long for a packet, each of its strings is cut.
    """
    import json

    data = json.dumps(body).encode()
    if len(data) > MAX_BODY // 2:
        body = {key: v[: MAX_BODY // 32] if isinstance(v, str) else v for key, v in body.items()}
        data = json.dumps(body).encode()
    return Message(kind, id, body=data)


def text_message(kind: Kind, text: str) -> Message:
    """A message with a text as its body, cut so that it surely fits a packet."""
    return Message(kind, body=text[: MAX_BODY // 8].encode(errors="replace"))


def log_message(level: Level, source: str, text: str) -> Message:
    """A message for the client's logging. Its id is the PID of this process.

    Args:
        level: the level to log at.
        source: the name of the module whose logger the client uses.
        text: the log message.
    """
    message = json_message(Kind.LOGGED, {"source": source, "text": text})
    return message._replace(id=os.getpid(), flag=level)


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a message's body.

    Raises:
        ProtocolError: the body holds no JSON object.
    """
    return parse_json(body, _checked_object, "a JSON object")


def _checked_object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(type(value).__name__)
    return value


def parse_json(data: bytes, make: Callable[[Any], Made], name: str) -> Made:
    """Parse JSON that a peer sent, and check it.

    Args:
        data: the JSON text.
        make: returns what the parsed value stands for. It raises ValueError, TypeError or KeyError
            if the value is not as it should be.
        name: what `make` returns, for the error message: "a failure".

    Raises:
        ProtocolError: `data` is not JSON, or `make` refused it.
    """
    import json  # not at the top: not every process has JSON to read

    try:
        return make(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError(f"not {name}: {str(error)[:_REASON_LIMIT]}") from None


def all_are(kind: type | UnionType, *values: object) -> bool:
    """Whether all values are of one type."""
    return all(isinstance(value, kind) for value in values)


def check(is_valid: bool) -> None:
    """Refuse a value in the `make` of `parse_json`. Raises ValueError unless `is_valid`."""
    if not is_valid:
        raise ValueError("wrong values")


def encode(message: Message) -> bytes:
    """The message as bytes, without its descriptors.

    Raises:
        ValueError: the body or the descriptors do not fit into a packet.
    """
    kind, id, flag, form, body, fds = message
    if len(body) > MAX_BODY or len(fds) > MAX_FDS:
        raise ValueError(f"{kind.name} message too large: {len(body)} bytes, {len(fds)} fds")
    return _HEADER.pack(len(body), kind, flag, form, len(fds), id) + body


def decode(packet: bytes, fds: Iterable[int] | None = ()) -> list[Message]:
    """The messages of one packet, each with its descriptors.

    Args:
        packet: the packet.
        fds: the descriptors that came beside it; None if this process could not receive them. The
            messages then have none.

    Raises:
        ProtocolError: the packet is truncated, has an unknown kind or form, or announces more or
            fewer descriptors than there are. The caller still owns `fds`.
    """
    messages = []
    rest = list(fds or ())
    end = len(packet)
    at = 0
    while at < end:
        body_at = at + _HEADER_SIZE
        if body_at > end:
            raise ProtocolError("truncated header")
        size, kind, flag, form, fd_count, id = _HEADER.unpack_from(packet, at)
        at = body_at + size
        own: tuple[int, ...] = ()
        if fd_count and fds is not None:
            own = tuple(rest[:fd_count])
            del rest[:fd_count]
        if at > end or (len(own) < fd_count and fds is not None):
            raise ProtocolError("truncated message")
        try:
            fields = (_KINDS[kind], id, flag, _FORMS[form], packet[body_at:at], own)
        except KeyError as error:
            raise ProtocolError(f"unknown kind or form {error}") from None
        messages.append(Message._make(fields))
    if rest:
        raise ProtocolError("descriptors that belong to no message")
    return messages


_KINDS = {int(kind): kind for kind in Kind}
_FORMS = {int(form): form for form in Form}
