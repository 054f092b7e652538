"""Every error that the pool itself raises or sets on a future.

All of them derive from `CompilePoolError`, except `RemoteTraceback`. An exception that a job raises
is none of them: the future raises it unchanged, with a `RemoteTraceback` as its `__cause__`.

Every message starts with one sentence that says what happened, to which job, and what to do next.
Details follow below it. All errors can be pickled.
"""

from __future__ import annotations

from compilepool.errors.base import (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    NestedPoolError,
    NodeLost,
    NoNode,
    PoolClosed,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    SupervisorDied,
    UnsupportedPlatform,
)
from compilepool.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilepool.errors.crashed import WorkerCrashed, WorkersKilled

__all__ = [
    "CompilePoolError",
    "JobTimeout",
    "MemoryLimitExceeded",
    "NestedPoolError",
    "NoNode",
    "NodeLost",
    "PoolClosed",
    "PreloadFailed",
    "RemoteTraceback",
    "SerializationError",
    "SupervisorDied",
    "UnsupportedPlatform",
    "WorkerCrashed",
    "WorkersKilled",
]

for _error in (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    NestedPoolError,
    NodeLost,
    NoNode,
    PoolClosed,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    SupervisorDied,
    UnsupportedPlatform,
):
    _error.__module__ = __name__  # the public module, for tracebacks and pickles


def __getattr__(name: str) -> object:
    """Load an error when it is first used whose base class takes long to import."""
    if name not in ("WorkerCrashed", "WorkersKilled"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from compilepool.errors import crashed

    value: object = getattr(crashed, name)
    globals()[name] = value
    return value
