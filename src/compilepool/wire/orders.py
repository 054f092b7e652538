"""What a worker is told when it starts, that is not the same for all workers."""

from __future__ import annotations

import json

from compilepool.wire.light_typing import NamedTuple
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
