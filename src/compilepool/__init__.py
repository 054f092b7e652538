"""compilepool: a crash-isolated, orphan-proof pool of worker processes for compilations.

This module has the public names and nothing else. Each name is imported when it is first used: the
supervisor imports this package, too, and must load only the standard library and the parts of
compilepool that it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for `typing`'s, which is slow to import

if TYPE_CHECKING:
    from compilepool.any_process.identity import has_parent_changed, in_toplevel_process
    from compilepool.any_process.phases import report_phase
    from compilepool.any_process.worker_initializer import worker_initializer
    from compilepool.client.as_completed import as_completed
    from compilepool.client.future import CompileFuture
    from compilepool.client.job_dump import JobDump
    from compilepool.client.pool import CompilePool
    from compilepool.errors import (
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
        WorkerCrashed,
    )
    from compilepool.observe.record import JobRecord
    from compilepool.observe.stats import PoolStats
    from compilepool.version import __version__ as __version__

_HOME = {
    "CompilePool": "compilepool.client.pool",
    "CompileFuture": "compilepool.client.future",
    "JobDump": "compilepool.client.job_dump",
    "JobRecord": "compilepool.observe.record",
    "CompilePoolError": "compilepool.errors",
    "JobTimeout": "compilepool.errors",
    "MemoryLimitExceeded": "compilepool.errors",
    "NestedPoolError": "compilepool.errors",
    "NoNode": "compilepool.errors",
    "NodeLost": "compilepool.errors",
    "PoolClosed": "compilepool.errors",
    "PoolStats": "compilepool.observe.stats",
    "PreloadFailed": "compilepool.errors",
    "RemoteTraceback": "compilepool.errors",
    "SerializationError": "compilepool.errors",
    "SupervisorDied": "compilepool.errors",
    "UnsupportedPlatform": "compilepool.errors",
    "WorkerCrashed": "compilepool.errors",
    "__version__": "compilepool.version",
    "as_completed": "compilepool.client.as_completed",
    "has_parent_changed": "compilepool.any_process.identity",
    "in_toplevel_process": "compilepool.any_process.identity",
    "report_phase": "compilepool.any_process.phases",
    "worker_initializer": "compilepool.any_process.worker_initializer",
}

__all__ = [
    "CompileFuture",
    "CompilePool",
    "CompilePoolError",
    "JobDump",
    "JobRecord",
    "JobTimeout",
    "MemoryLimitExceeded",
    "NestedPoolError",
    "NoNode",
    "NodeLost",
    "PoolClosed",
    "PoolStats",
    "PreloadFailed",
    "RemoteTraceback",
    "SerializationError",
    "SupervisorDied",
    "UnsupportedPlatform",
    "WorkerCrashed",
    "as_completed",
    "has_parent_changed",
    "in_toplevel_process",
    "report_phase",
    "worker_initializer",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
