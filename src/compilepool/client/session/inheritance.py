"""Pickles what every worker starts with, locks of `multiprocessing` included.

`multiprocessing` pickles its locks only for a process that it is starting. A worker that gets the
`initargs` is starting, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from compilepool.light_typing import Any, NoReturn
from compilepool.text import describe
from compilepool.wire.payloads import Section
from compilepool.wire.serializers import dump

ADVICE = "workers can use what a multiprocessing.Manager() makes"
"""What to do about something that is for heirs only."""

_CONNECTION = "only the first worker would get the connection; pass it to a job as an argument"
_UNFIT = {
    b"AuthenticationString": "a Manager's proxy beside a lock would bring its key into crash"
    " folders; pass one of them to jobs as an argument",
    b"rebuild_connection": _CONNECTION,
}
"""Why startups must not have what is pickled under these names."""


class _StartingWorkers:
    """What `multiprocessing` asks for while it pickles for a process that is being started."""

    def duplicate_for_child(self, _fd: int) -> NoReturn:
        """Refuse to hand a descriptor over, as queues, pipes and shared memory need it."""
        raise RuntimeError("workers inherit no pipes and no shared memory")

    DupFd = duplicate_for_child


def is_for_heirs_only(error: BaseException) -> bool:
    """Whether `multiprocessing` has refused to pickle for a process that it is not starting."""
    return isinstance(error, RuntimeError) and "through inheritance" in str(error)


def dump_startup(
    serializer: object, initializer: object, initargs: Sequence[object]
) -> list[Section]:
    """The sections of what every worker starts with, see `worker.main.Startup`.

    Raises:
        Exception: it cannot be pickled.
    """
    connection: Any = sys.modules.get("multiprocessing.connection")
    if connection is not None and any(isinstance(arg, connection.Connection) for arg in initargs):
        raise RuntimeError(_CONNECTION)  # before `multiprocessing` copies the descriptor
    startup = (serializer, initializer, tuple(initargs))
    try:
        sections = dump(startup)
    except RuntimeError as error:
        if not is_for_heirs_only(error):
            raise
        sections = _with_locks(startup)
    for name, reason in _UNFIT.items():
        if any(name in bytes(piece) for piece in sections[0]):
            raise RuntimeError(reason)
    return sections


def _with_locks(startup: Sequence[object]) -> list[Section]:
    """Pickle locks by name. A lock of the context "fork" has none."""
    context: Any = sys.modules["multiprocessing.context"]
    context.set_spawning_popen(_StartingWorkers())
    try:
        return dump(startup)
    except Exception as error:
        raise RuntimeError(
            f"{describe(error)}; {ADVICE}, and locks of multiprocessing.get_context('spawn')"
        ) from error
    finally:
        context.set_spawning_popen(None)
