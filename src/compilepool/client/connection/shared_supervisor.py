"""A connection to a supervisor that this process shares with others."""

from __future__ import annotations

import contextlib

from compilepool.client.connection.connection import SupervisorConnection


class SharedSupervisor(SupervisorConnection):
    """A supervisor that lives for all its clients. This process only leaves it.

    It is no child of this process, so nobody here can wait for it, or learn its exit code.
    """

    def kill(self) -> None:
        """End the connection. The supervisor cancels what is left of this client's jobs."""
        if self.pidfd < 0:
            return
        with contextlib.suppress(OSError):
            self.channel.check_is_open()
            self.channel.end()

    def bury(self, patience_s: float) -> int | None:
        """Note the end of the connection. It has no exit code."""
        self.kill()
        self.is_buried.set()
        return None
