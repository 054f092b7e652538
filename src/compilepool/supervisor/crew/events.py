"""What happens to the processes of a pool, as the crew tells it."""

from __future__ import annotations

from collections.abc import Mapping

from compilepool.light_typing import NamedTuple, TypeAlias
from compilepool.supervisor.rules.actions import RunId, WorkerId
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Level, Message
from compilepool.wire.payloads import Payload


class WorkerReady(NamedTuple):
    """The worker has started, and reads its runs."""

    worker: WorkerId


class RunEnded(NamedTuple):
    """The worker has sent the RESULT of its first run. Whoever handles this owns the descriptors.

    The handler raises `ProtocolError` if it is malformed.
    """

    worker: WorkerId
    result: Message


class RunOutput(NamedTuple):
    """The end of the output of a run that has ended, as is told next."""

    run: RunId
    tail: bytes


class OverLimit(NamedTuple):
    """The run, which the worker has begun, has gone over a limit."""

    worker: WorkerId
    run: RunId
    verdict: Verdict


class WorkerCrashing(NamedTuple):
    """The worker has crashed, and is looked into; `WorkerLost` follows within a bound."""

    worker: WorkerId


class WorkerLost(NamedTuple):
    """The worker is dead, and all that it had sent has been told.

    Attributes:
        worker: its id.
        last_started: the last run that it has begun; 0 if none.
        why: why it is dead.
    """

    worker: WorkerId
    last_started: RunId
    why: Failure


class ForkServerLost(NamedTuple):
    """A fork server is dead, and its workers with it.

    Attributes:
        last_started: of each of its workers, the last run that it has begun.
        why: why it is dead.
        why_no_worker: the same, as the reason why no worker can be started.
        was_leaving: whether no more workers were to come from it.
    """

    last_started: Mapping[WorkerId, RunId]
    why: Failure
    why_no_worker: Failure
    was_leaving: bool


class PreloadFailed(NamedTuple):
    """A preload module has failed: no worker can be started."""

    why: Failure


class InitializerFailed(NamedTuple):
    """The user's initializer has raised: no worker can be started.

    Attributes:
        outcome: the `Outcome` of the payload.
        payload: the exception, as a RESULT would have it. It has no descriptor.
    """

    outcome: int
    payload: Payload


class IdleMemory(NamedTuple):
    """So many bytes does a worker take that has no run. Told once."""

    size: int


class Logged(NamedTuple):
    """Something for the clients' logging.

    Attributes:
        level: its level.
        source: the module of ours whose logger it is for.
        text: what there is to say.
    """

    level: Level
    source: str
    text: str


CrewEvent: TypeAlias = (
    WorkerReady
    | RunEnded
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
