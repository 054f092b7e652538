"""The events by which the crew tells the pool what happens to the processes."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.light_typing import NamedTuple, TypeAlias
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Level, Message
from compilepool.wire.payloads import Payload


class WorkerReady(NamedTuple):
    """The worker has started and reads its runs."""

    worker: WorkerId


class RunEnded(NamedTuple):
    """The worker has sent the RESULT of its first run.

    The handler owns the descriptors. It raises `ProtocolError` if the RESULT is malformed.
    """

    worker: WorkerId
    result: Message


class TornDown(NamedTuple):
    """The worker has torn down what its last run has left.

    Attributes:
        is_outgrown: whether it has more private memory than it may keep.
    """

    worker: WorkerId
    is_outgrown: bool


class RunOutput(NamedTuple):
    """A run has ended, with this end of its output. The event that ends the run follows."""

    run: RunId
    tail: bytes


class OverLimit(NamedTuple):
    """The worker's current run has exceeded a limit."""

    worker: WorkerId
    run: RunId
    verdict: Verdict


class WorkerCrashing(NamedTuple):
    """The worker has crashed, and is being inspected. `WorkerLost` follows within a bound."""

    worker: WorkerId


class WorkerLost(NamedTuple):
    """The worker is dead. The events for all that it had sent came before.

    Attributes:
        worker: the worker's id.
        last_started: the last run that the worker has begun; 0 if none.
        why: why the worker is dead.
    """

    worker: WorkerId
    last_started: RunId
    why: Failure


class ForkServerLost(NamedTuple):
    """A fork server and its workers are dead.

    Attributes:
        last_started: for each of its workers, the last run that the worker has begun; 0 if none.
        why: why its runs fail.
        why_no_worker: why no worker can be started.
        was_leaving: whether it was about to exit, and started no more workers.
    """

    last_started: Mapping[WorkerId, RunId]
    why: Failure
    why_no_worker: Failure
    was_leaving: bool


class PreloadFailed(NamedTuple):
    """A preload module has failed, so no worker can be started."""

    why: Failure


class InitializerFailed(NamedTuple):
    """The user's initializer has raised, so no worker can be started.

    Attributes:
        outcome: the `Outcome` of the payload.
        payload: the exception, in the format of a RESULT. It has no descriptor.
    """

    outcome: int
    payload: Payload


class IdleMemory(NamedTuple):
    """The bytes of private memory that an idle worker takes. One worker reports this, once."""

    size: int


class Logged(NamedTuple):
    """A message for the clients' logging.

    Attributes:
        level: the level.
        source: the name of the logger, which is a module of this package.
        text: the message.
    """

    level: Level
    source: str
    text: str


CrewEvent: TypeAlias = (
    WorkerReady
    | RunEnded
    | TornDown
    | RunOutput
    | OverLimit
    | WorkerCrashing
    | WorkerLost
    | ForkServerLost
    | PreloadFailed
    | InitializerFailed
    | IdleMemory
    | Logged
)
