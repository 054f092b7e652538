"""Runs one job in a worker: unpickles the call, runs it, and pickles the result or exception."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from compilepool.light_typing import Any
from compilepool.text import describe
from compilepool.wire.messages import Outcome
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.serializers import Serializer, dump, dump_payload, load_payload
from compilepool.wire.spares import Spares


@contextlib.contextmanager
def environment(variables: Sequence[tuple[str, str | None]]) -> Iterator[None]:
    """Set environment variables for the duration of the context; the value None unsets one."""
    before = [(name, os.environ.get(name)) for name, _ in variables]
    _apply(variables)
    try:
        yield
    finally:
        _apply(before)


def _apply(variables: Sequence[tuple[str, str | None]]) -> None:
    for name, value in variables:
        if name == "TMPDIR":
            _forget_tempdir()
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _forget_tempdir() -> None:
    """Have `tempfile` look for its folder anew, unless somebody has chosen one for it."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None and tempfile.tempdir in (os.environ.get("TMPDIR"), "/tmp"):
        tempfile.tempdir = None  # type: ignore[attr-defined] # of any module


_TEXT_LIMIT = 1 << 20  # characters


def run_job(
    call: Payload,
    serializer: Serializer | None,
    remains: list[Any],
    spares: Spares | None = None,
    restore: Callable[[], None] | None = None,
) -> tuple[Outcome, Payload]:
    """Run the call in a payload, which is closed. Never raises, whatever the job does.

    Args:
        call: the payload with the function and its arguments.
        serializer: the user's serializer, or None.
        remains: gets the call, and its result or exception. They are torn down when the caller
            clears it, which may run any code, and crash: so the caller sends the result before.
        spares: memfds that the result may be written to.
        restore: called when the function has returned or raised, see `Surroundings.restore`.

    Returns:
        How the call ended, and the payload for its RESULT.
    """
    try:
        function, args, kwargs = loaded = load_payload(call, serializer)
        remains.append(loaded)
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        remains.append(error)
        if restore is not None:
            restore()
        return _unserializable("the call", error, type_name(error), error)
    try:
        result = function(*args, **kwargs)
        if restore is not None:
            restore()
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt, too
        remains.append(error)
        if restore is not None:
            restore()  # again, if a timer went off just before
        return raised(error)
    remains.append(result)
    try:
        return Outcome.RETURNED, dump_payload(result, serializer, spares)
    except BaseException as error:  # noqa: BLE001 - runs the user's code
        remains.append(error)
        return _unserializable("the result", result, type_name(result), error)


def unreceived() -> tuple[Outcome, Payload]:
    """The outcome of a call whose descriptor this process could not receive."""
    reason = OSError(errno.EMFILE, "the worker has too many open files, left by earlier jobs")
    return _unserializable("the call", reason, "", reason)


def raised(error: BaseException) -> tuple[Outcome, Payload]:
    """The outcome of a call that raised."""
    text = _format(error)
    head = {"type": type_name(error), "traceback": text}
    try:
        # Not with the user's serializer, which need not support exceptions.
        return Outcome.RAISED, pack([[json.dumps(head).encode()], *dump(error)])
    except BaseException as reason:  # noqa: BLE001 - runs the user's code
        return _unserializable("the exception", error, type_name(error), reason, text)


def type_name(value: object) -> str:
    """The module and qualified name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _unserializable(
    what: str, value: object, type_: str, reason: BaseException, text: str | None = None
) -> tuple[Outcome, Payload]:
    head: dict[str, Any] = {
        "what": what,
        "type": type_,
        "reason": describe(reason)[:_TEXT_LIMIT],
        "traceback": _format(reason) if text is None else text,
    }
    return Outcome.UNSERIALIZABLE, pack([[json.dumps(head).encode()]])


def _format(error: BaseException) -> str:
    try:
        # Leave out the frame of this file.
        frames = error.__traceback__.tb_next if error.__traceback__ else None
        return "".join(traceback.format_exception(type(error), error, frames))[:_TEXT_LIMIT]
    except BaseException:  # noqa: BLE001 - the user's __str__
        return f"{type_name(error)}: <traceback could not be formatted>\n"
