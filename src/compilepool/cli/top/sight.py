"""What `top` knows of all pools at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from compilepool.text import printable
from compilepool.wire.visiting import FailedLook, PoolLook


class Used(NamedTuple):
    """What a process takes, with all processes below it.

    Attributes:
        cpu: the part of one CPU that they have kept busy since the last look; None at the first.
        resident: the bytes of memory that they have in RAM. Memory that several of them share
            counts for each.
    """

    cpu: float | None
    resident: int


class PoolSight(NamedTuple):
    """One pool.

    Attributes:
        place: the path of the directory that has its socket.
        name: its name there.
        is_private: whether it belongs to one program.
        look: what its supervisor has shown; None if that could not be learnt.
        trouble: why not; empty if nothing went wrong.
        now: the time of the look, by `time.monotonic()`.
        used: by PID, what the pool's processes take; none if they are in another container.
        names: by PID, the names of all clients that were seen.
        failures: all failures that were seen, the oldest first.
    """

    place: str
    name: str
    is_private: bool
    look: PoolLook | None
    trouble: str = ""
    now: float = 0.0
    used: Mapping[int, Used] = {}
    names: Mapping[int, str] = {}
    failures: tuple[FailedLook, ...] = ()

    @property
    def key(self) -> str:
        """What no other pool has."""
        return f"{self.place}/{self.name}"

    @property
    def label(self) -> str:
        """A short name for people: the first digits of an identity, or the program's PID."""
        if self.is_private and self.look is not None:
            return "-".join(str(client.pid) for client in self.look.clients) or str(self.look.pid)
        return printable(self.name[:8])

    @property
    def total(self) -> Used:
        """What all processes of the pool take."""
        used = self.used.values()
        known = [each.cpu for each in used if each.cpu is not None]
        return Used(sum(known) if known else None, sum(each.resident for each in used))

    def client(self, pid: int) -> str:
        """A client for people: its PID and its name."""
        return f"{pid} {self.names.get(pid, '')}".strip()

    def concerns(self, text: str, pids: tuple[int, ...]) -> bool:
        """Whether one of these clients matches a filter: part of its PID or of its name."""
        return not text or any(text.lower() in self.client(pid).lower() for pid in pids)


def as_json(pools: list[PoolSight]) -> dict[str, Any]:
    """All pools as JSON can hold them. docs/top.md says what the fields mean."""
    return {"pools": [_pool_as_json(pool) for pool in pools]}


def _pool_as_json(pool: PoolSight) -> dict[str, Any]:
    look = pool.look
    known: dict[str, Any] = {
        "name": pool.name,
        "directory": pool.place,
        "private": pool.is_private,
        "error": pool.trouble or None,
    }
    if look is None:
        return known
    fields = look._asdict()
    for name in ("identity", "workers", "clients", "queue", "failures", "pid", "linger_s"):
        del fields[name]
    return {
        **known,
        "supervisor": look.pid,
        "linger_seconds": look.linger_s,
        **fields,
        **_used(pool.total if pool.used else None),
        "clients": [
            {"pid": client.pid, "name": pool.names.get(client.pid, ""), "jobs": client.jobs}
            for client in look.clients
        ],
        "workers": [
            {
                "pid": worker.pid,
                "state": worker.state,
                "run": worker.run or None,
                "job": worker.job or None,
                "seconds": pool.now - worker.since if worker.run else None,
                "phase": worker.phase or None,
                "phase_seconds": pool.now - worker.phase_since if worker.phase else None,
                "clients": worker.clients,
                **_used(pool.used.get(worker.pid)),
            }
            for worker in look.workers
        ],
        "queue": [queued._asdict() for queued in look.queue],
        "failures": [
            {
                "number": failed.number,
                "at": failed.at,
                "job": failed.job,
                "clients": failed.clients,
                "cause": str(failed.failure.cause),
                "exitcode": failed.failure.exitcode,
                "what": what_failed(failed),
            }
            for failed in pool.failures
        ],
    }


def what_failed(failed: FailedLook) -> str:
    """A failure in one line."""
    from compilepool.client.reports.errors import error_of, headline_of

    return printable(headline_of(error_of(failed.failure, failed.job)))


def _used(used: Used | None) -> dict[str, Any]:
    if used is None:
        return {"cpu": None, "resident_bytes": None}
    return {"cpu": used.cpu, "resident_bytes": used.resident}
