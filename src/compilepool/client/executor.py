"""What a `CompilePool` and its views with options have in common: they submit and map."""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import islice

from compilepool.any_process.chunks import run_chunk
from compilepool.client.future import CompileFuture
from compilepool.light_typing import (
    Any,
    ParamSpec,
    TypeVar,
    lazy_annotations,
)

P = ParamSpec("P")
T = TypeVar("T")


@lazy_annotations
class JobExecutor(Executor):
    """An executor that submits and maps by `_submit`, which its classes implement."""

    @abstractmethod
    def _submit(
        self, fn: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> CompileFuture[T]:
        """Send a job to the pool; raises as `submit`."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> CompileFuture[T]:
        """Run `fn(*args, **kwargs)` in a worker.

        Args:
            fn: a callable that pickle or cloudpickle can send. Lambdas, closures and functions of
                `__main__` are fine.
            args: its arguments.
            kwargs: its keyword arguments.

        Returns:
            The future of the result. An exception that `fn` raises is raised by the future
            unchanged, with a `RemoteTraceback` as its cause. Errors of the pool are
            `CompilePoolError`s.

        Raises:
            PoolClosed: the pool was shut down.
            NestedPoolError: this process is a worker of a pool.
            SerializationError: the call cannot be pickled.
            ValueError: the memory limit is known to be lower than the memory of an idle worker.
        """
        if not callable(fn):
            raise TypeError(f"submit needs a callable, not {type(fn).__name__}")
        return self._submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Run `fn` for the arguments that the iterables yield, as `ProcessPoolExecutor.map` does.

        The jobs are submitted when this is called, except with `buffersize`. If an item fails, or
        the iterator is closed, the jobs behind it are cancelled; those that run already are ended.

        Args:
            fn: as for `submit`.
            iterables: one for each argument of `fn`; the shortest decides how many calls there are.
            timeout: the time from this call to each result, in seconds; None: no limit.
            chunksize: how many calls make one job. Names, limits and options hold for the job. If a
                call raises, the results of its whole chunk are lost.
            buffersize: how many jobs may be submitted ahead of the result that is taken next, so
                that the iterables may be endless; None: all. (New in Python 3.14.)

        Returns:
            An iterator of the results, in the order of the arguments.

        Raises:
            TypeError, ValueError: an argument is wrong.
            TimeoutError: from the iterator: a result did not come in time.
            PoolClosed, SerializationError: as `submit`.
        """
        if not callable(fn):
            raise TypeError(f"map needs a callable, not {type(fn).__name__}")
        if not hasattr(chunksize, "__index__"):  # numpy's integers have it
            raise TypeError(f"chunksize must be an int, not {chunksize!r}")
        if chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        if not isinstance(buffersize, int | None):
            raise TypeError(f"buffersize must be an int or None, not {buffersize!r}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, or None, not {buffersize}")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            # By `submit`, as in `concurrent.futures`: a subclass may have its own.
            return _results((self.submit(fn, *args) for args in calls), deadline, buffersize)
        run = functools.partial(run_chunk, fn)
        chunks = iter(lambda: tuple(islice(calls, chunksize)), ())
        jobs = (self.submit(run, chunk) for chunk in chunks)
        return _flat(_results(jobs, deadline, buffersize))


def name_of(fn: Callable[..., object]) -> str:
    """The name of a job that calls `fn`."""
    while isinstance(fn, functools.partial):
        fn = fn.args[0] if fn.func is run_chunk else fn.func
    return getattr(fn, "__qualname__", None) or repr(fn)


def _results(
    jobs: Iterator[CompileFuture[T]], deadline: float | None, buffersize: int | None
) -> Iterator[T]:
    """Submit the first jobs now. Returns what yields their results, and submits the others."""
    futures: deque[CompileFuture[T]] = deque()
    try:
        futures.extend(islice(jobs, buffersize))
    except BaseException:
        # `extend` has taken over the jobs that were submitted before an iterable, or the pool,
        # failed. Nobody else knows them.
        _cancel(futures)
        raise
    return _each_result(futures, jobs, deadline)


def _each_result(
    futures: deque[CompileFuture[T]], jobs: Iterator[CompileFuture[T]], deadline: float | None
) -> Iterator[T]:
    try:
        while futures:
            futures.extend(islice(jobs, 1))
            # The frame keeps no reference to the future: a result may be large.
            yield _result_or_cancel(futures.popleft(), deadline)
    finally:
        _cancel(futures)


def _result_or_cancel(future: CompileFuture[T], deadline: float | None) -> T:
    try:
        return future.result(None if deadline is None else deadline - time.monotonic())
    finally:
        future.cancel()
        del future  # else an exception's traceback, and so the exception, would keep it


def _cancel(futures: Iterable[CompileFuture[Any]]) -> None:
    for future in futures:
        future.cancel()


def _flat(lists: Iterator[list[T]]) -> Iterator[T]:
    for results in lists:
        results.reverse()
        while results:  # nothing keeps a result that the caller has let go
            yield results.pop()
