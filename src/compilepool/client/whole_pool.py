"""What the pools have in common, on one machine and over many: how they submit, and end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

from compilepool.client.executor import JobExecutor, name_of
from compilepool.client.future import CompileFuture
from compilepool.light_typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeVar,
    lazy_annotations,
)

if TYPE_CHECKING:
    from types import TracebackType

    from compilepool.wire.submission import JobTerms

T = TypeVar("T")


class PoolSession(Protocol):
    """The life of a pool, see `Session`."""

    def submit(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        terms: JobTerms,
        flight_key: str | None = None,
    ) -> CompileFuture[Any]:
        """Send a job."""

    def terminate(self) -> None:
        """Accept no more jobs, and end all jobs and processes."""


@lazy_annotations
class WholePool(JobExecutor):
    """A pool, and not a view of one."""

    _session: PoolSession
    _default_terms: JobTerms

    @property
    @abstractmethod
    def max_workers(self) -> int:
        """The number of jobs that may run at once."""

    @abstractmethod
    def terminate_workers(self) -> None:
        """Send SIGTERM to all workers."""

    @abstractmethod
    def kill_workers(self) -> None:
        """End all processes at once."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        is_interrupted = not isinstance(exc_val, Exception | GeneratorExit | None)
        if is_interrupted:
            self._session.terminate()
        self.shutdown(wait=not is_interrupted)  # `terminate` has waited already
        return False

    @property
    def _max_workers(self) -> int:
        """`max_workers` under the name that dask and others read."""
        return self.max_workers

    def _submit(
        self, fn: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> CompileFuture[T]:
        return self._session.submit(name_of(fn), fn, args, kwargs, self._default_terms)
