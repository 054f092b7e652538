"""A job, as the supervisor knows it."""

from __future__ import annotations

from compilepool.light_typing import NamedTuple
from compilepool.supervisor.links.client import ClientLink
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import JobTerms


class Run(NamedTuple):
    """A job that has not ended.

    Attributes:
        client: whose it is.
        id: the client's number of it.
        name: its name.
        terms: how it is to be treated.
        payload: its call.
    """

    client: ClientLink
    id: int
    name: str
    terms: JobTerms
    payload: Payload

    @property
    def kind(self) -> str:
        """What jobs that are like it have in common."""
        return self.terms.key or self.name
