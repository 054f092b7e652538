"""What travels between the program and the actor of a node. Ray pickles it.

Calls, results and exceptions stay pickled on their way: only the program and the workers unpickle
what is the user's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from compilepool.errors import CompilePoolError
from compilepool.observe.stats import Memory
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload
from compilepool.wire.submission import JobTerms


class Packed(NamedTuple):
    """A payload without a descriptor, as plain values.

    Attributes:
        form: its form, a `Form`.
        body: its bytes.
    """

    form: int
    body: bytes

    @classmethod
    def of(cls, payload: Payload) -> Packed:
        """The same payload, which is closed."""
        payload = payload.spill()
        return cls(int(payload.form), payload.body)

    @property
    def payload(self) -> Payload:
        """The payload."""
        return Payload(Form(self.form), self.body)


class PackedJob(NamedTuple):
    """A job for a node.

    Attributes:
        id: the program's number for it.
        name: its name.
        call: its function and arguments.
        terms: its terms.
    """

    id: int
    name: str
    call: Packed
    terms: JobTerms


class Cancel(NamedTuple):
    """A job is not wanted any more.

    Attributes:
        id: the program's number for it.
    """

    id: int


class EndedJob(NamedTuple):
    """How a job has ended on its node.

    Attributes:
        id: the program's number for it.
        usage: the values of its `Usage`, with the node's clock.
        log: the end of its output.
        shared: as in its record.
        outcome: how its call ended; meaningless without a result.
        result: what it returned or raised; None if there is an error, or if the result is large.
        size: the bytes of a large result, which the program fetches; else 0.
        error: the error of the pool; None if there is none.
    """

    id: int
    usage: list[Any]
    log: str
    shared: str
    outcome: int = 0
    result: Packed | None = None
    size: int = 0
    error: CompilePoolError | None = None


class Report(NamedTuple):
    """What a node has to say.

    Attributes:
        started: the jobs that have begun.
        ended: the jobs that have ended.
        memory: the bytes of memory that jobs may still take there.
    """

    started: list[int]
    ended: list[EndedJob]
    memory: int


class RunningThere(NamedTuple):
    """A job that a node runs now; as `compilepool.observe.observer.RunningJob`."""

    id: int
    seconds: float
    phase: str


class NodeSample(NamedTuple):
    """A node at one moment.

    Attributes:
        running: the jobs that it runs, the oldest first.
        memory: the memory of its processes.
        is_short_of_memory: as in `compilepool.observe.observer.Sample`.
    """

    running: list[RunningThere]
    memory: Memory
    is_short_of_memory: bool


class Opened(NamedTuple):
    """A node's pool is there.

    Attributes:
        workers: how many jobs it runs at once.
        memory: the bytes of memory that jobs may take.
    """

    workers: int
    memory: int
