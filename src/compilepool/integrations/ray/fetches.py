"""The large results that nodes keep until this program fetches them: never too many at once."""

from __future__ import annotations

from collections import deque

from compilepool.integrations.ray.messages import EndedJob


class Fetches:
    """Decides which large results come next. Pure.

    Args:
        bound: how many bytes may be on their way at once. A larger result comes alone.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._waiting: deque[tuple[str, EndedJob]] = deque()
        self._on_their_way = 0

    def add(self, node: str, ended: EndedJob) -> None:
        """A node has a large result."""
        self._waiting.append((node, ended))

    def next(self) -> list[tuple[str, EndedJob]]:
        """The nodes and the results to fetch now. Each is followed by `done`."""
        chosen = []
        while self._waiting:
            size = self._waiting[0][1].size
            if self._on_their_way and self._on_their_way + size > self._bound:
                break
            self._on_their_way += size
            chosen.append(self._waiting.popleft())
        return chosen

    def done(self, ended: EndedJob) -> None:
        """A result has come, or never will."""
        self._on_their_way -= ended.size
