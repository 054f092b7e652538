"""The critical path: the chain of runs and waits that the end of the last job followed from.

It is found from its end. A run began when it did because a worker became free, because a worker had
started, or because the program submitted the job then. The trace does not say for which results a
program waits. So a job that did not wait for a worker is taken to have been submitted because of
the result that its program had got last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence

from compilepool.light_typing import Final, Literal, NamedTuple, TypeAlias
from compilepool.observe.trace_report.reading import Run

Kind: TypeAlias = Literal["run", "queue", "memory", "start", "program"]

KINDS: Final[tuple[Kind, ...]] = ("run", "start", "queue", "memory", "program")


class Step(NamedTuple):
    """One step of the path.

    Attributes:
        kind: "run": a worker ran a job; "queue": a job was on its way to a free worker; "memory":
            it waited for memory; "start": it waited for a worker to start; "program": the program
            had submitted nothing that could run.
        begin: when it begins, in microseconds.
        end: when it ends. The next step begins then.
        run: the index of the run, or of the run that waited.
    """

    kind: Kind
    begin: int
    end: int
    run: int


def critical_path(
    runs: Sequence[Run], shortages: Sequence[tuple[int, int, int]], workers: Sequence[int]
) -> list[Step]:
    """Find the path.

    Args:
        runs: all runs, sorted by their end.
        shortages: when each pool was seen to wait for memory: its index, begins and ends.
        workers: how many workers each pool could have.

    Returns:
        The steps in order, without a gap, up to the end of the last run. Steps that take no time
        are left out.
    """
    return _Search(runs, shortages, workers).steps() if runs else []


class _Search:
    def __init__(
        self,
        runs: Sequence[Run],
        shortages: Sequence[tuple[int, int, int]],
        workers: Sequence[int],
    ) -> None:
        self._runs = runs
        self._shortages = shortages
        self._of_worker = _indices_by([[(run.pool, run.worker)] for run in runs])
        self._of_client = _indices_by([run.clients for run in runs])
        self._of_pool = _indices_by([[run.pool] for run in runs])
        self._freeing = _freeing(runs, workers)

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        at: int | None = len(self._runs) - 1
        while at is not None:
            run = self._runs[at]
            steps.append(Step("run", run.started, run.ended, at))
            before, why = self._before_start(at)
            if before is not None:
                steps.append(Step(why, self._runs[before].ended, run.started, at))
            else:
                steps.append(Step(why, run.queued, run.started, at))
                of_client = self._of_client[run.clients[0]]
                before = self._last_of(of_client, run.queued, at)
                if before is None:
                    first = min(self._runs[each].queued for each in of_client)
                    steps.append(Step("program", first, run.queued, at))
                else:
                    steps.append(Step("program", self._runs[before].ended, run.queued, at))
            at = before
        return [step for step in reversed(steps) if step.begin < step.end]

    def _before_start(self, at: int) -> tuple[int | None, Kind]:
        """The run that this one waited for, if any, and what it waited for after that."""
        run = self._runs[at]
        if self._is_short(run):
            before = self._last_of(self._of_pool[run.pool], run.started, at)
            if before is not None and self._runs[before].ended > run.queued:
                return before, "memory"
            return None, "memory"
        before = self._last_of(self._of_worker[run.pool, run.worker], run.started, at)
        if before is not None:
            is_waited_for = self._runs[before].ended > run.queued
            return (before if is_waited_for else None), "queue"
        before = self._last_of(self._freeing.get(run.pool, []), run.started, at)
        if before is not None and self._runs[before].ended > run.queued:
            return before, "start"
        return None, "start"

    def _is_short(self, run: Run) -> bool:
        """Whether memory was short while the run waited."""
        return any(
            pool == run.pool and begin < run.started and end > run.queued
            for pool, begin, end in self._shortages
        )

    def _last_of(self, indices: list[int], until: int, at: int) -> int | None:
        """The last of some runs that ended by a time, and is before `at` in the order of ends."""
        found = bisect_right(indices, until, key=lambda index: self._runs[index].ended) - 1
        while found >= 0 and indices[found] >= at:  # only runs that take no time
            found -= 1
        return indices[found] if found >= 0 else None


def _indices_by(keys: Sequence[Iterable[Hashable]]) -> dict[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for index, keys_of_run in enumerate(keys):
        for key in keys_of_run:
            found.setdefault(key, []).append(index)
    return found


def _freeing(runs: Sequence[Run], workers: Sequence[int]) -> dict[int, list[int]]:
    """By pool, the runs at whose end all workers were busy: another run may have waited for it."""
    events = sorted(
        [(run.started, 1, index) for index, run in enumerate(runs)]
        + [(run.ended, 0, index) for index, run in enumerate(runs)]
    )
    busy = [0] * len(workers)
    found: dict[int, list[int]] = {}
    for _, is_start, index in events:
        pool = runs[index].pool
        if not is_start and busy[pool] >= workers[pool]:
            found.setdefault(pool, []).append(index)
        busy[pool] += 1 if is_start else -1
    return {pool: sorted(indices) for pool, indices in found.items()}
