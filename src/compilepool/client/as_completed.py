"""`as_completed`, which can show progress while it waits."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from compilepool.client.future import CompileFuture
from compilepool.client.options import check_progress
from compilepool.light_typing import TYPE_CHECKING, Any, TypeVar, lazy_annotations
from compilepool.observe.observer import RunningJob, Sample
from compilepool.observe.sampler import Sampler
from compilepool.observe.stats import Memory

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.observe.board import Board

T = TypeVar("T")

_SAMPLE_S = 0.2


@lazy_annotations
def as_completed(
    futures: Iterable[Future[T]],
    timeout: float | None = None,
    *,
    progress: bool | Progress = False,
) -> Iterator[Future[T]]:
    """Iterate over futures as they are done, and optionally show progress meanwhile.

    Without `progress`, this is `concurrent.futures.as_completed`.

    Args:
        futures: futures of any executors. The jobs that run are shown only for a `CompilePool`.
        timeout: the longest time that all futures together may take, in seconds; None: no limit.
        progress: whether to show progress on error output, if it is a terminal; or a
            `rich.progress.Progress` to show it in.

    Returns:
        An iterator that yields each future when it is done.

    Raises:
        TypeError: `progress` is neither a bool nor a `rich.progress.Progress`.
        TimeoutError: raised by the iterator: the time is over and a future is not done.
    """
    check_progress(progress)
    if progress is False:
        return concurrent.futures.as_completed(futures, timeout)
    return _shown(set(futures), timeout, None if progress is True else progress)


def _shown(
    futures: set[Future[T]], timeout: float | None, progress: Progress | None
) -> Iterator[Future[T]]:
    from compilepool.observe.board import Board

    shown = _Shown(futures, Board("compiling", progress))
    sampler = Sampler(shown.look, [shown], _SAMPLE_S)
    try:
        sampler.submitted(0, "")  # one job that never ends keeps the sampler running
        for future in concurrent.futures.as_completed(futures, timeout):
            shown.note_done(future)
            yield future
    finally:
        sampler.close()


class _Shown:
    """The source of samples for a set of futures, and the `Consumer` that shows them."""

    def __init__(self, futures: set[Future[Any]], board: Board) -> None:
        self._futures = futures
        self._board = board

    def note_done(self, future: Future[Any]) -> None:
        """Show the failure of a future, if it failed."""
        error = None if future.cancelled() else future.exception()
        if error is not None:
            name = future.name if isinstance(future, CompileFuture) else "a job"
            self._board.note_failure(name, error)

    def look(self) -> Sample:
        """Take a sample of the futures."""
        owners = {
            owner
            for future in self._futures
            if isinstance(future, CompileFuture) and (owner := future._owner) is not None
        }
        running: list[RunningJob] = []
        for owner in owners:
            running += owner.running_among(self._futures)
        unfinished = sum(not future.done() for future in self._futures)
        queued = max(0, unfinished - len(running))
        return Sample(time.monotonic(), unfinished, queued, running, Memory)

    def sample(self, sample: Sample) -> None:
        """Implements `Consumer.sample`."""
        done = len(self._futures) - sample.unfinished
        self._board.show(done, len(self._futures), sample.running)

    def close(self) -> None:
        """Implements `Consumer.close`."""
        self._board.close()

    def abandon(self) -> None:
        """Implements `Consumer.abandon`: the board knows by itself which process it belongs to."""
