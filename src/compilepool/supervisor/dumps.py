"""Answers to clients that ask what a job does."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.supervisor.client_link import ClientLink
from compilepool.supervisor.crew import Crew
from compilepool.wire.messages import Kind
from compilepool.wire.snapshot import JobSnapshot


class Dumps:
    """The jobs that are being looked into for a client.

    Args:
        has_ended: tells whether a job has ended.
    """

    def __init__(self, has_ended: Callable[[int], bool]) -> None:
        self._has_ended = has_ended
        self._running: set[int] = set()

    def answer(self, client: ClientLink, id: int, crew: Crew | None, worker: int | None) -> None:
        """Tell what a job does just now. A question asked again gets the answer to the first.

        Args:
            client: who asks.
            id: the client's number of the job.
            crew: where it runs, if anywhere.
            worker: who has it; None if nobody has.
        """
        number = client.jobs.get(id)

        def tell(snapshot: JobSnapshot) -> None:
            client.send(snapshot.payload().message(Kind.DUMPED, id))

        def looked_into(snapshot: JobSnapshot) -> None:
            assert number is not None
            self._running.discard(number)
            tell(JobSnapshot("ended") if self._has_ended(number) else snapshot)

        if number is None:
            tell(JobSnapshot("ended"))
        elif number in self._running:
            return
        elif worker is None or crew is None or not crew.runs(worker, number):
            tell(JobSnapshot("queued"))
        else:
            self._running.add(number)
            crew.look_into(worker, looked_into)
