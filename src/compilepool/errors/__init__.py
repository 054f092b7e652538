"""What can go wrong: every error that the pool itself raises or sets on a future.

All derive from `CompilePoolError`. An exception that a job raised is none of them: it arrives as
itself, with `RemoteTraceback` as its cause. Every message starts with one sentence that says what
happened, to which job, and what to do next; detail stands below it. All of them pickle.
"""

from __future__ import annotations

from compilepool.errors.base import (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    NestedPoolError,
    PoolClosed,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    SupervisorDied,
    UnsupportedPlatform,
)
from compilepool.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilepool.errors.crashed import WorkerCrashed

__all__ = [
    "CompilePoolError",
    "JobTimeout",
    "MemoryLimitExceeded",
    "NestedPoolError",
    "PoolClosed",
    "PreloadFailed",
    "RemoteTraceback",
    "SerializationError",
    "SupervisorDied",
    "UnsupportedPlatform",
    "WorkerCrashed",
]

for _error in (
    CompilePoolError,
    JobTimeout,
    MemoryLimitExceeded,
    NestedPoolError,
    PoolClosed,
    PreloadFailed,
    RemoteTraceback,
    SerializationError,
    SupervisorDied,
    UnsupportedPlatform,
):
    _error.__module__ = __name__  # what tracebacks show, and pickles refer to


def __getattr__(name: str) -> object:
    """`WorkerCrashed` loads when somebody needs it: its base class takes long to import."""
    if name != "WorkerCrashed":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from compilepool.errors.crashed import WorkerCrashed

    globals()[name] = WorkerCrashed
    return WorkerCrashed
