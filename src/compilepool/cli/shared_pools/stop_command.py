"""`compilepool stop`: ends shared pools."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from compilepool.cli.shared_pools.place import meeting_place
from compilepool.client.connection.visits import Visit, look, stop
from compilepool.text import printable
from compilepool.wire.meeting_place import MeetingPlace, directory


def stop_pools(identities: Sequence[str] | None, *, as_json: bool = False) -> bool:
    """End shared pools, and print what has ended.

    Args:
        identities: the beginnings of their identities; None: all pools.
        as_json: whether to print JSON.

    Returns:
        Whether all have ended.

    Raises:
        ValueError: there is no such pool, or there are several, or the directory in which they are
            is not safe. No pool was stopped.
        OSError: the directory cannot be read.
    """
    with meeting_place() as place:
        names = [] if place is None else [visit.name for visit in look(place)]
        if identities is not None:
            names = list(dict.fromkeys(_name_of(each, names) for each in identities))
        if as_json:
            return _stop_as_json(place, names)
        if place is None or not names:
            print(printable(f"no shared pools in {directory()}"))
            return True
        return _stop(place, names)


def _stop(place: MeetingPlace, names: Sequence[str]) -> bool:
    visits = {visit.name: visit for visit in stop(place, names)}
    for name in names:
        print(printable(f"{name}  {_outcome(visits.get(name))}"))
    return not any(visit.trouble for visit in visits.values())


def _stop_as_json(place: MeetingPlace | None, names: Sequence[str]) -> bool:
    visits = {} if place is None else {visit.name: visit for visit in stop(place, names)}
    rows = []
    for name in names:
        visit = visits.get(name)
        trouble = "" if visit is None else visit.trouble
        view = None if visit is None else visit.view
        rows.append(
            {
                "identity": name,
                "ended": not trouble,
                "error": trouble or None,
                "clients": [] if view is None else [client._asdict() for client in view.clients],
            }
        )
    json.dump(rows, sys.stdout, indent=1)
    print()
    return all(row["ended"] for row in rows)


def _name_of(identity: str, names: Sequence[str]) -> str:
    """The only name that begins with an identity's first digits."""
    found = [name for name in names if identity and name.startswith(identity)]
    if not found:
        raise ValueError(
            f"no shared pool in {directory()} has the identity {identity!r}; see `compilepool ps`"
        )
    if len(found) > 1:
        raise ValueError(f"{identity!r} may be any of {', '.join(found)}; give more digits")
    return found[0]


def _outcome(visit: Visit | None) -> str:
    if visit is None:
        return "had ended already"
    if visit.view is None:
        return f"has not ended: {visit.trouble}; if it was stopped, it ends when it goes on"
    clients = len(visit.view.clients)
    busy = sum(1 for client in visit.view.clients if client.jobs)
    had = f"it had {clients} client{'' if clients == 1 else 's'}, {busy} with unfinished jobs"
    if visit.trouble:
        return f"is told to end, but {visit.trouble} (pid {visit.view.pid}); {had}"
    return f"has ended; {had}"
