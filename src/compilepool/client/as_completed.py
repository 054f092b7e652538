"""`as_completed`, with progress shown."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from compilepool.client.future import CompileFuture
from compilepool.client.options import check_progress
from compilepool.light_typing import TYPE_CHECKING, Any, TypeVar
from compilepool.observe.observer import RunningJob, Sample
from compilepool.observe.sampler import Sampler
from compilepool.observe.stats import Memory

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.observe.board import Board

T = TypeVar("T")

_SAMPLE_S = 0.2


def as_completed(
    futures: Iterable[Future[T]],
    timeout: float | None = None,
    *,
    progress: bool | Progress = False,
) -> Iterator[Future[T]]:
    """As `concurrent.futures.as_completed`, and shows meanwhile how far things are.

    Args:
        futures: of any executors; what runs is shown of those of a `CompilePool`.
        timeout: for how long all may take, in seconds; None: without limit.
        progress: whether to show it on the terminal of error output, if that is one; or a
            `rich.progress.Progress` to show it in.

    Returns:
        An iterator over the futures, each as it is done.

    Raises:
        TypeError: `progress` is neither.
        TimeoutError: from the iterator, after `timeout`.
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
        sampler.submitted(0, "")  # for as long as this runs
        for future in concurrent.futures.as_completed(futures, timeout):
            shown.note_done(future)
            yield future
    finally:
        sampler.close()


class _Shown:
    """What is shown of some futures. A `Consumer`."""

    def __init__(self, futures: set[Future[Any]], board: Board) -> None:
        self._futures = futures
        self._board = board

    def note_done(self, future: Future[Any]) -> None:
        """It is done."""
        error = None if future.cancelled() else future.exception()
        if error is not None:
            name = future.name if isinstance(future, CompileFuture) else "a job"
            self._board.note_failure(name, error)

    def look(self) -> Sample:
        """How things are."""
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

    def sample(self, look: Sample) -> None:
        """As `Consumer.sample`."""
        done = len(self._futures) - look.unfinished
        self._board.show(done, len(self._futures), look.running)

    def close(self) -> None:
        """As `Consumer.close`."""
        self._board.close()

    def abandon(self) -> None:
        """As `Observer.abandon`: the board knows by itself."""
