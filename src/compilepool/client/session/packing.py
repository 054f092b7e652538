"""Pickles what the user gives the pool: calls, and what every worker starts with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from compilepool.client.options import PoolOptions
from compilepool.client.session.inheritance import ADVICE, dump_startup, is_for_heirs_only
from compilepool.errors import CompilePoolError, SerializationError
from compilepool.light_typing import Any
from compilepool.text import describe
from compilepool.wire.payloads import INLINE_LIMIT, Payload, pack
from compilepool.wire.serializers import Serializer, dump
from compilepool.wire.spares import Spares


def pack_call(
    name: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    serializer: Serializer | None,
    spares: Spares | None = None,
) -> Payload:
    """Pickle what a job calls.

    Args:
        name: the job's name.
        function: what it calls.
        args: the arguments.
        kwargs: the keyword arguments.
        serializer: the user's, or None.
        spares: memfds that the payload may be written to.

    Raises:
        SerializationError: it cannot be pickled.
        CompilePoolError: there is no room for it.
    """
    try:
        sections = dump((function, args, kwargs), serializer)
    except Exception as error:
        raise SerializationError(
            f"job {name!r} could not be pickled: {describe(error)};"
            " its function and arguments must be picklable, by cloudpickle if not by pickle"
            + f"; {ADVICE}"
            * is_for_heirs_only(error)
        ) from error
    try:
        return pack(sections, spares=spares)
    except OSError as error:
        raise not_sent(name, error) from error


def pack_startup(options: PoolOptions) -> Payload | None:
    """Pickle what every worker starts with (`worker.main.Startup`); None if nothing.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if options.serializer is None and options.initializer is None:
        return None
    try:
        sections = dump_startup(options.serializer, options.initializer, options.initargs)
        payload = pack(sections, inline_limit=-1)
        # It is kept as long as the pool: as bytes, which need no descriptor, unless it is large.
        is_small = os.fstat(payload.fd).st_size <= INLINE_LIMIT
        return payload.spill() if is_small else payload
    except Exception as error:
        raise SerializationError(
            f"serializer, initializer or initargs could not be pickled: {describe(error)};"
            " every worker needs a copy of them"
        ) from error


def not_sent(name: str, error: OSError) -> CompilePoolError:
    """The error for a job that could not be sent because of the machine's limits."""
    return CompilePoolError(
        f"job {name!r} could not be sent: {error}; see to this process's limits (`ulimit -a`)"
    )
