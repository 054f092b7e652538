"""The inner face of a pool: what integrations need of it beyond its public methods."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future

from compilepool.client.connection.process_variables import NAMES
from compilepool.client.pool import CompilePool
from compilepool.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they need what other platforms lack
    from compilepool.client.connection.connection import SupervisorConnection
    from compilepool.wire.pool_view import WorkerView

PROCESS_VARIABLES = NAMES
"""The environment variables that name one process, and not what it compiles."""


def first_worker(pool: CompilePool) -> Future[bool]:
    """Start all workers, and tell when the first job could run.

    Returns:
        A future: True when there is a worker; or False if the supervisor is gone, or workers are
        not wanted any more; or the error that keeps workers from starting.

    Raises:
        PoolClosed, CompilePoolError: the processes cannot be started.
    """
    return pool._session.first_worker()


def end_without_waiting(pool: CompilePool) -> None:
    """`CompilePool.kill_workers` that returns at once."""
    pool._session.terminate(wait=False)


def supervisor_of(pool: CompilePool) -> SupervisorConnection | None:
    """The current supervisor; None while there is none."""
    return pool._session.link.supervisor


def workers_of(
    pool: CompilePool, futures: Collection[Future[Any]]
) -> dict[Future[Any], WorkerView]:
    """The workers of these futures' jobs; a job that does not run is left out."""
    return pool._session.statistics.workers_of(futures)
