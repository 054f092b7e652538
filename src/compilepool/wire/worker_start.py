"""What a worker is started with: its own settings and its descriptors.

The supervisor sends them to the fork server, which hands them to the worker.
"""

from __future__ import annotations

from collections.abc import Sequence

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import parse_json


class WorkerOrders(NamedTuple):
    """The settings of one worker.

    Attributes:
        cpus: the CPUs that the worker may use; empty means the CPUs of the process that starts it.
        tells_idle_memory: whether the worker's READY has the bytes of private memory that it takes.
        max_memory: the bytes of private memory above which the worker reports how many it has; 0
            means never.
        number: the number of the worker among all that the pool has started; the first is 1.
        tells_files: whether the worker tells from which files it has loaded modules.
    """

    cpus: tuple[int, ...] = ()
    tells_idle_memory: bool = False
    max_memory: int = 0
    number: int = 0
    tells_files: bool = False

    def encode(self) -> bytes:
        """The settings as JSON, for a START_WORKER message or a command line."""
        import json

        return json.dumps(self).encode()

    @classmethod
    def decode(cls, data: bytes) -> WorkerOrders:
        """Parse what `encode` returned.

        Raises:
            ProtocolError: it is invalid.
        """
        return parse_json(data, cls._of_values, "the orders of a worker")

    @classmethod
    def _of_values(cls, values: list[Any]) -> WorkerOrders:
        cpus, tells_idle_memory, max_memory, number, tells_files = values
        cpus = tuple(map(int, cpus))
        return cls(cpus, bool(tells_idle_memory), int(max_memory), int(number), bool(tells_files))


class WorkerFds(NamedTuple):
    """The descriptors of one worker, in the order in which they travel.

    Attributes:
        socket: the worker's link to the supervisor.
        crash: the socket that the worker writes tracebacks to.
        status: the memfd of the worker's status page, see `wire.status_page`.
        outputs: the two pipes that jobs write their output to, in turn; None if it is not captured.
        startup: the memfd with what every worker starts with, see `worker.main.Startup`; or None.
    """

    socket: int
    crash: int
    status: int
    outputs: tuple[int, int] | None
    startup: int | None

    def flat(self) -> tuple[int, ...]:
        """All descriptors in one tuple."""
        startup = () if self.startup is None else (self.startup,)
        return (self.socket, self.crash, self.status, *(self.outputs or ()), *startup)

    @classmethod
    def of_flat(cls, fds: Sequence[int], *, captures: bool) -> WorkerFds:
        """The inverse of `flat`.

        Args:
            fds: the descriptors.
            captures: whether `outputs` is among them.

        Raises:
            ValueError: there are too few or too many descriptors.
        """
        own = 5 if captures else 3
        if len(fds) not in (own, own + 1):
            raise ValueError(f"{len(fds)} descriptors for a worker")
        outputs = (fds[3], fds[4]) if captures else None
        startup = fds[own] if len(fds) > own else None
        return cls(fds[0], fds[1], fds[2], outputs, startup)
