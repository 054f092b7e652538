"""A consistent hash ring: which nodes a key would rather go to.

All programs of a cluster get the same answer, without asking each other. A node that leaves or
joins changes the answer for its own share of the keys only (Karger et al., "Consistent Hashing and
Random Trees", 1997).
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator

_POINTS = 64
"""Points on the ring for each node: with so many, the largest share is some 1.3 times the mean."""


def _place(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Ring:
    """The nodes at their places."""

    def __init__(self) -> None:
        self._points: list[tuple[int, str]] = []

    def add(self, node: str) -> None:
        """A node has joined."""
        for number in range(_POINTS):
            bisect.insort(self._points, (_place(f"{node} {number}"), node))

    def remove(self, node: str) -> None:
        """A node has left."""
        self._points = [point for point in self._points if point[1] != node]

    def walk(self, key: str, most: int) -> Iterator[str]:
        """The nodes for a key, the first choice first.

        Args:
            key: the key.
            most: how many points to look at, at most.
        """
        points = self._points
        at = bisect.bisect(points, (_place(key), ""))
        seen = set()
        for step in range(min(most, len(points))):
            node = points[(at + step) % len(points)][1]
            if node not in seen:
                seen.add(node)
                yield node
