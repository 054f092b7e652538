"""The links to all workers, and what their status pages tell."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.watch.run_memory import resident_growth
from compilepool.wire.loaded_files import LoadedFile


class WorkerLinks(dict[WorkerId, WorkerLink]):
    """The link to each worker. A worker that could not be started has none.

    Attributes:
        loaded_files: the files that workers, dead ones included, have loaded modules from.
    """

    def __init__(self) -> None:
        self.loaded_files: set[LoadedFile] = set()

    @property
    def are_outdated(self) -> bool:
        """Whether a file of `loaded_files` has changed."""
        return any(file.has_changed for file in self.loaded_files)

    def memory_of(self, runs: Mapping[WorkerId, RunId]) -> dict[RunId, int]:
        """An upper bound of the bytes that each run takes, for runs that have begun.

        Args:
            runs: the first run of each worker.
        """
        known = runs.keys() & self.keys()
        links = [(self[worker], runs[worker]) for worker in known]
        return {
            run: resident_growth(link.pid, link.status.before)
            for link, run in links
            if link.has_started and link.status.job == run
        }

    def memory_seen(self, worker: WorkerId, run: RunId) -> int:
        """The most bytes that a run was seen to take; 0 if it was never measured."""
        return self[worker].memory_seen(run)

    def has_begun(self, worker: WorkerId, run: RunId) -> bool:
        """Whether the worker has begun the run."""
        return worker in self and self[worker].status.job == run

    def is_tearing_down(self, worker: WorkerId) -> bool:
        """Whether the worker tears down for long what its last run has left."""
        return worker in self and self[worker].status.is_tearing_down
