"""The user's objects as payloads, and what is said when that fails."""

from __future__ import annotations

from compilepool.errors import CompilePoolError, SerializationError
from compilepool.options import PoolOptions
from compilepool.wire.failure import describe
from compilepool.wire.light_typing import Any
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.serializers import Serializer, dump
from compilepool.wire.spares import Spares


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
