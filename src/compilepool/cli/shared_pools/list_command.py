"""`compilepool ps`: lists the shared pools of this user on this node."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from compilepool.cli.shared_pools.place import meeting_place
from compilepool.client.connection.visits import Visit, look
from compilepool.observe.stats import memory_of_pool
from compilepool.text import printable, size_text
from compilepool.wire.meeting_place import directory

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_WIDTH = 80
_MIN_NAME = 20  # characters


def list_pools(*, as_json: bool) -> None:
    """Print the shared pools.

    Raises:
        OSError, ValueError: the directory in which they are cannot be read, or is not safe.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack letters of a client's name
        sys.stdout.reconfigure(errors="replace")
    with meeting_place() as place:
        visits = [] if place is None else look(place)
        rows = [_row(visit) for visit in visits]
    if as_json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    elif rows:
        _show(rows)
    else:
        print(printable(f"no shared pools in {directory()}"))


def _row(visit: Visit) -> dict[str, Any]:
    """What is shown about a pool."""
    view = visit.view
    if view is None:
        return {"identity": visit.name, "error": visit.trouble}
    # The PIDs of another container may be those of strangers here.
    workers = [worker.pid for worker in view.workers]
    memory = memory_of_pool(view.pid, view.fork_server, workers) if visit.has_own_pids else None
    return {
        "identity": visit.name,
        "supervisor": view.pid,
        "started": view.started,
        "age_seconds": max(0.0, time.time() - view.started),
        "linger_seconds": view.linger_s,
        "clients": [client._asdict() for client in view.clients],
        "fork_server": view.fork_server,
        "workers": workers,
        "queued": view.queued,
        "joined": view.joined,
        "reused": view.reused,
        "memory": None if memory is None else {**memory._asdict(), "total": memory.total},
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    for row in rows:
        for line in _lines(row):
            console.print(line, soft_wrap=True)


def _lines(row: dict[str, Any]) -> list[Text]:
    identity = (printable(row["identity"]), "bold")
    if "error" in row:
        return [Text.assemble(identity, ("  " + printable(row["error"]), "yellow"))]
    memory = row["memory"]
    size = "of another container" if memory is None else f"{size_text(memory['total'])} (PSS)"
    clients, workers = row["clients"], row["workers"]
    return [
        Text.assemble(identity, f"  {_duration(row['age_seconds'])} old, {size}"),
        Text(
            f"    {_count(len(clients), 'client')}, {_count(len(workers), 'worker')},"
            f" {_count(row['queued'], 'run')} queued, lingers {_duration(row['linger_seconds'])}"
        ),
        Text(
            f"    {_count(row['joined'], 'job')} joined a run,"
            f" {_count(row['reused'], 'job')} got a kept result"
        ),
        *map(_client_line, clients),
    ]


def _client_line(client: dict[str, Any]) -> Text:
    start, end = f"    {client['pid']:>7}  ", f"  {_count(client['jobs'], 'unfinished job')}"
    name = _cut(printable(client["name"]), max(_MIN_NAME, _WIDTH - len(start) - len(end)))
    return Text.assemble(start, (name, "cyan"), end)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _duration(seconds: float) -> str:
    """A time in its two largest units, such as "2 h 5 min"."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
        elif parts:
            break
        left %= size
    return " ".join(parts[:2])
