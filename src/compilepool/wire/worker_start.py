"""What a worker is started with: orders of its own, and descriptors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import ProtocolError


class WorkerOrders(NamedTuple):
    """The orders for one worker.

    Attributes:
        cpus: the CPUs that it may use; empty: those of the process that starts it.
        tells_idle_memory: whether its READY tells how many bytes of memory it takes then.
        max_memory: from how many bytes of its own on it tells how many it has; 0: never.
    """

    cpus: tuple[int, ...] = ()
    tells_idle_memory: bool = False
    max_memory: int = 0

    def encode(self) -> bytes:
        """As a START_WORKER message has them; printable."""
        return json.dumps(self).encode()

    @classmethod
    def decode(cls, data: bytes) -> WorkerOrders:
        """The inverse of `encode`. Raises `ProtocolError` if that is none."""
        try:
            cpus, tells_idle_memory, max_memory = json.loads(data)
            allowed = tuple(int(cpu) for cpu in cpus)
            return cls(allowed, bool(tells_idle_memory), int(max_memory))
        except (ValueError, TypeError, RecursionError):
            raise ProtocolError("not the orders of a worker") from None


class WorkerFds(NamedTuple):
    """They travel in this order.

    Attributes:
        socket: its link to the supervisor.
        crash: the socket that crashes are written to.
        status: the memfd of its status, see `wire.status`.
        outputs: the pipes that jobs write their output to, in turn; None if it is not captured.
        startup: a memfd with what every worker starts with, see `worker.main.Startup`; or None.
    """

    socket: int
    crash: int
    status: int
    outputs: tuple[int, int] | None
    startup: int | None

    def flat(self) -> tuple[int, ...]:
        """All of them."""
        startup = () if self.startup is None else (self.startup,)
        return (self.socket, self.crash, self.status, *(self.outputs or ()), *startup)

    @classmethod
    def of_flat(cls, fds: Sequence[int], *, captures: bool) -> WorkerFds:
        """The inverse of `flat`.

        Raises:
            ValueError: there are too few or too many.
        """
        own = 5 if captures else 3
        if len(fds) not in (own, own + 1):
            raise ValueError(f"{len(fds)} descriptors for a worker")
        outputs = (fds[3], fds[4]) if captures else None
        startup = fds[own] if len(fds) > own else None
        return cls(fds[0], fds[1], fds[2], outputs, startup)
