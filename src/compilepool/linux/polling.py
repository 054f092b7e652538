"""`poll()`: waits for several descriptors, also where a program has removed `select.poll`.

eventlet does that (`eventlet.monkey_patch`), so that nothing blocks its only thread. Its `select`
lets other green threads run.
"""

from __future__ import annotations

import select
from collections.abc import Sequence

from compilepool.light_typing import Protocol

READABLE, WRITABLE = 1, 4  # POLLIN and POLLOUT, <poll.h>


class Poll(Protocol):
    """What the pool uses of `select.poll`."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Wait for a descriptor, too."""

    def poll(self, timeout: float | None = None, /) -> Sequence[tuple[int, int]]:
        """Wait, and return the descriptors that are ready; the timeout is in milliseconds."""


def poll() -> Poll:
    """A new `select.poll` object, or one that does the same by `select.select`."""
    make = getattr(select, "poll", None)
    return _PollBySelect() if make is None else make()


class _PollBySelect:
    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, fd: int, eventmask: int, /) -> None:
        self._masks[fd] = eventmask

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        readable = [fd for fd, mask in self._masks.items() if mask & READABLE]
        writable = [fd for fd, mask in self._masks.items() if mask & WRITABLE]
        seconds = None if timeout is None else timeout / 1000
        to_read, to_write, _ = select.select(readable, writable, [], seconds)
        return [*((fd, READABLE) for fd in to_read), *((fd, WRITABLE) for fd in to_write)]
