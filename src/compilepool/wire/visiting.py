"""What a supervisor shows to a visitor: somebody of its user who is no client of it."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.failure import Failure
from compilepool.wire.messages import all_are, check
from compilepool.wire.payloads import Payload, pack_json, unpack_json
from compilepool.wire.pool_view import ClientView


class WorkerLook(NamedTuple):
    """A worker. Times are of `time.monotonic()`, which is the same in all processes.

    Attributes:
        pid: its PID; 0 if its process does not exist yet.
        state: "starting", "idle", "busy" or "leaving".
        run: the number of the run that it executes; 0 if none. Numbers are not used again.
        job: the name of the first job that has wanted the run.
        since: the time at which the run began.
        phase: the phase that the job has reported last; empty if none.
        phase_since: the time at which that phase began.
        clients: the PID of the client of each job that waits for the run.
    """

    pid: int
    state: str
    run: int
    job: str
    since: float
    phase: str
    phase_since: float
    clients: tuple[int, ...]


class QueuedLook(NamedTuple):
    """A run that has not begun.

    Attributes:
        run: its number.
        job: the name of the first job that has wanted it.
        clients: the PID of the client of each job that waits for it.
    """

    run: int
    job: str
    clients: tuple[int, ...]


class FailedLook(NamedTuple):
    """A run that has failed, through no exception of its own.

    Attributes:
        number: the first failure of a supervisor has the number 1, the next one 2.
        at: when it has ended, in seconds since the epoch.
        job: the name of the first job that has wanted it.
        clients: the PID of the client of each job that has waited for it.
        failure: why, shortened.
    """

    number: int
    at: float
    job: str
    clients: tuple[int, ...]
    failure: Failure


class PoolLook(NamedTuple):
    """A pool as anybody of its user sees it.

    Attributes:
        identity: the digest of all that its clients have in common; empty if it is private.
        pid: the PID of its supervisor.
        started: when it started, in seconds since the epoch.
        linger_s: the seconds that it lives without clients.
        clients: its clients. That of a private pool has no name.
        workers: its workers.
        fork_server: the PID of its fork server; 0 if there is none.
        is_quiesced: whether it sleeps.
        queued: the number of runs that wait.
        queue: the oldest of them.
        joined: the number of jobs that have joined the run of another job.
        reused: the number of jobs that have got a kept result.
        returned: the number of runs that have returned a result.
        raised: the number of runs that have raised an exception.
        failed: the number of runs that have failed through none.
        failures: the latest of them that the visitor does not know yet.
    """

    identity: str = ""
    pid: int = 0
    started: float = 0.0
    linger_s: float = 0.0
    clients: tuple[ClientView, ...] = ()
    workers: tuple[WorkerLook, ...] = ()
    fork_server: int = 0
    is_quiesced: bool = False
    queued: int = 0
    queue: tuple[QueuedLook, ...] = ()
    joined: int = 0
    reused: int = 0
    returned: int = 0
    raised: int = 0
    failed: int = 0
    failures: tuple[FailedLook, ...] = ()

    def payload(self) -> Payload:
        """This look as a payload; see `payloads.pack`."""
        failures = [each._replace(failure=each.failure._asdict()) for each in self.failures]  # type: ignore[arg-type]
        return pack_json({**self._asdict(), "failures": failures})

    @classmethod
    def of_payload(cls, payload: Payload) -> PoolLook:
        """The look in a payload, which is closed. Raises `ProtocolError`."""
        return unpack_json(payload, cls._of_fields, "a look at a pool")

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> PoolLook:
        check(
            isinstance(fields, dict) and fields.keys() == set(cls._fields)
        )  # another version has others
        look = cls(**fields)._replace(
            clients=tuple(ClientView(*each) for each in fields["clients"]),
            workers=tuple(map(_worker, fields["workers"])),
            queue=tuple(map(_queued, fields["queue"])),
            failures=tuple(map(_failed, fields["failures"])),
        )
        counts = (look.queued, look.joined, look.reused, look.returned, look.raised, look.failed)
        check(
            isinstance(look.identity, str)
            and isinstance(look.is_quiesced, bool)
            and all_are(int | float, look.started, look.linger_s)
            and all_are(int, look.pid, look.fork_server, *counts)
            and all(each.is_valid() for each in look.clients)
        )
        return look


def _worker(values: list[Any]) -> WorkerLook:
    look = WorkerLook(*values)._replace(clients=_pids(values[-1]))
    check(
        all_are(int, look.pid, look.run)
        and all_are(str, look.state, look.job, look.phase)
        and all_are(int | float, look.since, look.phase_since)
    )
    return look


def _queued(values: list[Any]) -> QueuedLook:
    run, job, clients = values
    check(isinstance(run, int) and isinstance(job, str))
    return QueuedLook(run, job, _pids(clients))


def _failed(values: list[Any]) -> FailedLook:
    number, at, job, clients, fields = values
    check(isinstance(number, int) and isinstance(at, int | float) and isinstance(job, str))
    return FailedLook(number, at, job, _pids(clients), Failure.of_fields(fields))


def _pids(values: list[Any]) -> tuple[int, ...]:
    check(isinstance(values, list) and all_are(int, *values))
    return tuple(values)
