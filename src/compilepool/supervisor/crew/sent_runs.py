"""The runs that workers have. They go into the workers' sockets as soon as these take them."""

from __future__ import annotations

from collections.abc import Iterable

from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import RunId
from compilepool.supervisor.runs import Run


class SentRuns:
    """The runs that workers have, and the workers whose sockets lack some of them."""

    def __init__(self) -> None:
        self._sent: dict[RunId, Run] = {}
        self._unsent_to: dict[int, WorkerLink] = {}

    @property
    def has_unsent(self) -> bool:
        """Whether some runs could not be sent yet, so that `send_rest` must be called soon."""
        return bool(self._unsent_to)

    def get(self, id: RunId) -> Run | None:
        """The run; None if no worker has it."""
        return self._sent.get(id)

    def send(self, link: WorkerLink, id: RunId, run: Run) -> None:
        """Put a run into the worker's socket."""
        self._sent[id] = run
        try:
            if not link.send_run(id, run.terms, run.payload):
                self._unsent_to[link.number] = link
        except OSError as error:
            _fail(link, error)

    def send_rest(self) -> None:
        """Try again to send the runs that could not be sent."""
        for link in list(self._unsent_to.values()):
            del self._unsent_to[link.number]
            try:
                if not link.send_rest():
                    self._unsent_to[link.number] = link
            except OSError as error:
                _fail(link, error)

    def pop(self, id: RunId) -> Run:
        """Remove a run, which has ended in its worker."""
        return self._sent.pop(id)

    def forget_runs(self, ids: Iterable[RunId]) -> None:
        """Remove runs that no worker has any more."""
        for id in ids:
            del self._sent[id]

    def forget_worker(self, link: WorkerLink) -> None:
        """The worker is dead. Call `forget_runs` for its runs, too."""
        self._unsent_to.pop(link.number, None)


def _fail(link: WorkerLink, error: OSError) -> None:
    link.trouble = f"the job could not be sent to it: {error}"
    link.kill()
