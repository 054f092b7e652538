"""Puts runs into the sockets of workers, at once or as soon as there is room."""

from __future__ import annotations

from collections.abc import Iterable

from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.supervisor.runs import Run


class RunSender:
    """Knows the runs that workers have, and those of them that could not be sent yet."""

    def __init__(self) -> None:
        self._sent: dict[RunId, Run] = {}
        self._unsent_to: dict[int, WorkerLink] = {}

    @property
    def has_unsent(self) -> bool:
        """Whether `send_rest` should be called before long."""
        return bool(self._unsent_to)

    def get(self, id: RunId) -> Run | None:
        """A run that a worker has; None if none has it."""
        return self._sent.get(id)

    def send(self, link: WorkerLink, id: RunId, run: Run) -> None:
        """Put a run into the worker's socket."""
        self._sent[id] = run
        try:
            if not link.send_job(id, run.terms, run.payload):
                self._unsent_to[link.number] = link
        except OSError as error:
            _fail(link, error)

    def send_rest(self) -> None:
        """Put the runs into the workers' sockets that could not be put there at once."""
        for link in list(self._unsent_to.values()):
            del self._unsent_to[link.number]
            try:
                if not link.send_rest():
                    self._unsent_to[link.number] = link
            except OSError as error:
                _fail(link, error)

    def pop(self, id: RunId) -> Run:
        """The run has ended in its worker."""
        return self._sent.pop(id)

    def forget_runs(self, ids: Iterable[RunId]) -> None:
        """No worker has these runs any more."""
        for id in ids:
            del self._sent[id]

    def forget_worker(self, link: WorkerLink) -> None:
        """The worker is dead. The runs that it had are to be forgotten as well."""
        self._unsent_to.pop(link.number, None)


def _fail(link: WorkerLink, error: OSError) -> None:
    link.trouble = f"the job could not be sent to it: {error}"
    link.kill()
