"""The descriptors that a worker is started with."""

from __future__ import annotations

from collections.abc import Sequence

from compilepool.wire.light_typing import NamedTuple


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
