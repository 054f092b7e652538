"""The order in which the waiting runs of one priority start: their clients take turns."""

from __future__ import annotations

from collections import OrderedDict

from compilepool.light_typing import TypeAlias
from compilepool.supervisor.rules.actions import RunId

Line: TypeAlias = OrderedDict[RunId, None]
"""The runs of one client, in order. It is never empty."""


class Turns:
    """The waiting runs of one priority.

    In each round, every client that has runs starts one. A client that comes, and has not had its
    turn in this round, has it before the next round. So the runs that another client has queued
    delay its first one by one run of each other client at most. Every operation takes constant
    time.

    A run that several clients want is in the line of each. Whose turn comes first starts it.
    """

    def __init__(self) -> None:
        # A round ends when the first client of the next round has its turn, not before.
        self._due: OrderedDict[int, Line] = OrderedDict()
        """The lines of the clients whose turn in this round is still to come."""
        self._served: OrderedDict[int, Line] = OrderedDict()
        """The lines of the clients that have had it."""
        self._had_turn: set[int] = set()
        """The clients that have had it, with those that have no runs left."""

    def __bool__(self) -> bool:
        return bool(self._due or self._served)

    def put(self, id: RunId, client: int) -> None:
        """Add a run behind all others of a client."""
        line = self._due.get(client) or self._served.get(client)
        if line is None:
            lines = self._served if client in self._had_turn else self._due
            line = lines[client] = OrderedDict()
        line[id] = None

    def put_first(self, id: RunId, client: int) -> None:
        """Add a run before all others. Its client, which could not use its turn, has it again."""
        line = self._due.pop(client, None) or self._served.pop(client, None) or OrderedDict()
        line[id] = None
        line.move_to_end(id, last=False)
        self._due[client] = line
        self._due.move_to_end(client, last=False)

    def first(self) -> RunId:
        """The first run. Raises ValueError if there is none."""
        for line in (self._due or self._served).values():
            for id in line:
                return id
        raise ValueError("no run waits")

    def take(self) -> RunId:
        """Remove the first run from the line of the client whose turn it is, and return it.

        Raises:
            ValueError: there is none.
        """
        if self._due:
            client, line = self._due.popitem(last=False)
            self._had_turn.add(client)
            id, _ = line.popitem(last=False)
            if line:
                self._served[client] = line
            return id
        if len(self._served) > 1:
            self._due, self._served = self._served, self._due
            self._had_turn.clear()
            return self.take()
        # The round of the only client that has runs begins and ends.
        (client,) = self._served
        line = self._served[client]
        id, _ = line.popitem(last=False)
        if not line:
            del self._served[client]
        if len(self._had_turn) > 1:
            self._had_turn = {client}
        return id

    def remove(self, id: RunId, client: int) -> None:
        """Remove a run from a client's line, if it is there."""
        for lines in (self._due, self._served):
            line = lines.get(client)
            if line is not None:
                line.pop(id, None)
                if not line:
                    del lines[client]
