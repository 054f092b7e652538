"""`ConfiguredPool`, a view of a pool that submits jobs with options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compilepool.client.executor import JobExecutor, name_of
from compilepool.client.future import CompileFuture
from compilepool.client.whole_pool import PoolSession, WholePool
from compilepool.light_typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeVar,
    lazy_annotations,
)

if TYPE_CHECKING:
    from compilepool.wire.submission import JobTerms

T = TypeVar("T")


@lazy_annotations
class ConfiguredPool(JobExecutor):
    """A view of a `CompilePool` that submits jobs with options. Made by `CompilePool.options`.

    To shut it down is to shut the whole pool down.
    """

    def __init__(
        self,
        pool: WholePool,
        session: PoolSession,
        name: str | None,
        terms: JobTerms,
        flight_key: str | None,
    ) -> None:
        self._pool = pool  # so that the pool is not dropped before its view
        self._session = session
        self._name = name
        self._terms = terms
        self._flight_key = flight_key

    def _submit(
        self, fn: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> CompileFuture[T]:
        name = name_of(fn) if self._name is None else self._name
        return self._session.submit(name, fn, args, kwargs, self._terms, self._flight_key)

    @property
    def _max_workers(self) -> int:
        return self._pool.max_workers

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `CompilePool.shutdown`."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def terminate_workers(self) -> None:
        """As `CompilePool.terminate_workers`."""
        self._pool.terminate_workers()

    def kill_workers(self) -> None:
        """As `CompilePool.kill_workers`."""
        self._pool.kill_workers()

    def __exit__(self, *raised: Any) -> Literal[False]:
        return self._pool.__exit__(*raised)
