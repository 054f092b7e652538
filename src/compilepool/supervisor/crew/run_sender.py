"""Puts runs into the sockets of workers, at once or as soon as there is room."""

from __future__ import annotations

from collections.abc import Iterable

from compilepool.light_typing import NamedTuple
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.supervisor.runs import Run


class SentRun(NamedTuple):
    """A run that a worker has.

    Attributes:
        name: the run's name.
        attempt: the number of this attempt at it; the first is 1.
    """

    name: str
    attempt: int


_UNKNOWN = SentRun("", 1)


class RunSender:
    """Knows the runs that workers have, and those of them that could not be sent yet."""

    def __init__(self) -> None:
        self._sent: dict[RunId, SentRun] = {}
        self._unsent_to: dict[int, WorkerLink] = {}

    @property
    def has_unsent(self) -> bool:
        """Whether `send_rest` should be called before long."""
        return bool(self._unsent_to)

    def get(self, id: RunId) -> SentRun:
        """A run that a worker has; a nameless one if none has it."""
        return self._sent.get(id, _UNKNOWN)

    def send(self, link: WorkerLink, id: RunId, run: Run, attempt: int) -> None:
        """Put a run into the worker's socket."""
        self._sent[id] = SentRun(run.name, attempt)
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
