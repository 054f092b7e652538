"""Finds all pools of this user on this machine, and looks at them again and again."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Literal

from compilepool.cli.top.meter import Meter
from compilepool.cli.top.sight import PoolSight, Used
from compilepool.client.connection import visits
from compilepool.client.connection.visits import Visit
from compilepool.linux.proc import arguments_of, processes_named, stat, uptime_s, variable_of
from compilepool.text import printable
from compilepool.wire.job_snapshot import JobSnapshot
from compilepool.wire.meeting_place import MeetingPlace, NoMeetingPlace, directory, is_private
from compilepool.wire.messages import Kind
from compilepool.wire.visiting import FailedLook

_FIND_S = 5.0
"""How often the machine is searched for supervisors, which takes some milliseconds."""

_SILENT_S = 10.0
"""How long a supervisor that has not answered is left alone: what asks it waits in its socket."""

_YOUNG_S = 3.0  # a supervisor of a private pool makes its socket when it is 1 s old
_KEPT_FAILURES = 200


class Pools:
    """All pools. The methods may wait for supervisors, but none waits for this process."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._paths: list[str] = []
        self._supervisors: list[int] = []
        self._find_at = 0.0
        self._silent: dict[str, tuple[float, PoolSight]] = {}
        self._names: dict[str, dict[int, str]] = {}
        self._failures: dict[str, list[FailedLook]] = {}

    def look(self) -> list[PoolSight]:
        """Look at all pools: shared ones first, then by the time of their start."""
        now = time.monotonic()
        if now >= self._find_at:
            self._find_at = now + _FIND_S
            self._find()
        pools = [pool for path in self._paths for pool in self._look_into(path)]
        if all(pool.look is not None for pool in pools):  # else one of the silent ones may be it
            pools += self._hidden({pool.look.pid for pool in pools if pool.look is not None})
        self._forget_others(pools)
        pools.sort(key=lambda pool: (pool.is_private, pool.look.started if pool.look else 0.0))
        return self._measured(pools)

    def cancel(self, pool: PoolSight, run: int) -> str:
        """Cancel a run for all who wait for it. Returns what went wrong; empty if nothing did."""
        return self._ask(pool, Kind.CANCEL, run)

    def quiesce(self, pool: PoolSight) -> str:
        """Let a pool sleep. Returns what went wrong; empty if nothing did."""
        return self._ask(pool, Kind.QUIESCE, 0)

    def dump(self, pool: PoolSight, run: int) -> JobSnapshot | str:
        """Find out what a run is doing; or why that cannot be learnt."""
        with _place(pool.place) as place:
            return "its pool has ended" if place is None else visits.dump(place, pool.name, run)

    def _ask(self, pool: PoolSight, kind: Literal[Kind.CANCEL, Kind.QUIESCE], run: int) -> str:
        with _place(pool.place) as place:
            if place is None:
                return "it has ended"
            return visits.ask(place, pool.name, kind, run).trouble

    def _find(self) -> None:
        self._supervisors = processes_named("cp-supervisor")
        own = f"/run/user/{os.geteuid()}"
        runtimes = [
            None,
            "",
            own,
            *(variable_of(pid, "XDG_RUNTIME_DIR") for pid in self._supervisors),
        ]
        self._paths = [*dict.fromkeys(map(directory, runtimes))]

    def _look_into(self, path: str) -> list[PoolSight]:
        with _place(path) as place:
            if place is None:
                return []
            now = time.monotonic()
            names = place.all_names()
            silent = {
                name: pool
                for name in names
                for at, pool in [self._silent.get(f"{path}/{name}", (0.0, None))]
                if pool is not None and now < at
            }
            seen = {
                name: kept[-1].number
                for name in names
                if (kept := self._failures.get(f"{path}/{name}"))
            }
            found = visits.look_at(place, [name for name in names if name not in silent], seen)
        return [*silent.values(), *(self._sight(path, visit) for visit in found)]

    def _sight(self, path: str, visit: Visit) -> PoolSight:
        pool = PoolSight(path, visit.name, is_private(visit.name), visit.view, visit.trouble)
        now = time.monotonic()
        look = visit.view
        if look is None:
            self._silent[pool.key] = (now + _SILENT_S, pool)
            return pool
        self._silent.pop(pool.key, None)
        names = self._names.setdefault(pool.key, {})
        for client in look.clients:
            if client.pid not in names:
                name = client.name or (name_of_program(client.pid) if visit.has_own_pids else "")
                names[client.pid] = printable(name)
        kept = self._failures.setdefault(pool.key, [])
        kept += look.failures
        del kept[:-_KEPT_FAILURES]
        if not visit.has_own_pids:
            pool = pool._replace(trouble="it is in another container")
        return pool._replace(now=now, names=names, failures=tuple(kept))

    def _hidden(self, seen: set[int]) -> Iterator[PoolSight]:
        """The pools whose supervisors run and have no socket that was found."""
        for pid in self._supervisors:
            with contextlib.suppress(OSError, ValueError):
                if pid not in seen and uptime_s() - stat(pid).start_s > _YOUNG_S:
                    trouble = "it has no socket: it is of another version, or found no directory"
                    yield PoolSight("", f"{pid}", True, None, trouble)

    def _forget_others(self, pools: list[PoolSight]) -> None:
        keys = {pool.key for pool in pools}
        for known in (self._silent, self._names, self._failures):
            for key in known.keys() - keys:
                del known[key]

    def _measured(self, pools: list[PoolSight]) -> list[PoolSight]:
        here = [pool.look for pool in pools if pool.look is not None and not pool.trouble]
        alone = [pid for look in here for pid in (look.pid, look.fork_server) if pid]
        trees = [worker.pid for look in here for worker in look.workers if worker.pid]
        used = self._meter.read(alone, trees)
        return [pool._replace(used=_used_by(pool, used)) for pool in pools]


def _used_by(pool: PoolSight, used: Mapping[int, Used]) -> dict[int, Used]:
    look = pool.look
    if look is None or pool.trouble:
        return {}
    pids = (look.pid, look.fork_server, *(worker.pid for worker in look.workers))
    return {pid: used[pid] for pid in pids if pid in used}


@contextlib.contextmanager
def _place(path: str) -> Iterator[MeetingPlace | None]:
    """A meeting place that may be gone, or not be this user's."""
    if not os.path.lexists(path):
        yield None
        return
    try:
        place = MeetingPlace(path)
    except NoMeetingPlace:
        yield None
        return
    with place:
        yield place


def name_of_program(pid: int) -> str:
    """A program for people: the name of its script, or that of its interpreter."""
    program, *arguments = arguments_of(pid) or [""]
    for number, argument in enumerate(arguments):
        if argument == "-m":
            return "".join(arguments[number + 1 : number + 2])
        if argument == "-c":
            break
        if not argument.startswith("-"):
            return os.path.basename(argument)
    return os.path.basename(program)
