"""Puts jobs into the sockets of workers, at once or as soon as there is room."""

from __future__ import annotations

from compilepool.supervisor.links.worker import WorkerLink
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import JobTerms


class JobSender:
    """Knows which workers have jobs that could not be put into their sockets yet."""

    def __init__(self) -> None:
        self._unsent_to: dict[int, WorkerLink] = {}

    @property
    def has_unsent(self) -> bool:
        """Whether `send_rest` should be called before long."""
        return bool(self._unsent_to)

    def send(self, link: WorkerLink, job: int, terms: JobTerms, payload: Payload) -> None:
        """Put a job into the worker's socket."""
        try:
            if not link.send_job(job, terms, payload):
                self._unsent_to[link.number] = link
        except OSError as error:
            _fail(link, error)

    def send_rest(self) -> None:
        """Put the jobs into the workers' sockets that could not be put there at once."""
        for link in list(self._unsent_to.values()):
            self.forget(link)
            try:
                if not link.send_rest():
                    self._unsent_to[link.number] = link
            except OSError as error:
                _fail(link, error)

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead."""
        self._unsent_to.pop(link.number, None)


def _fail(link: WorkerLink, error: OSError) -> None:
    link.trouble = f"the job could not be sent to it: {error}"
    link.kill()
