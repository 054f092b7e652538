"""`Sidecar`: the supervisor process, in the form that `SubprocPool.process` has in torch."""

from __future__ import annotations

import signal
import subprocess

from compilepool.client.connection.connection import SupervisorConnection
from compilepool.linux import pidfds


class Sidecar:
    """The supervisor process, with those parts of `subprocess.Popen` that make sense for it.

    The pool itself waits for the process and reaps it.

    Args:
        supervisor: the process.
    """

    def __init__(self, supervisor: SupervisorConnection) -> None:
        self._supervisor = supervisor
        self.pid = supervisor.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; the negated number of a signal that killed the process; None: it lives."""
        return self._supervisor.exitcode

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the process, and return its exit code.

        Args:
            timeout: the longest time to wait, in seconds; None: no limit.

        Raises:
            subprocess.TimeoutExpired: the process is still alive.
        """
        if not self._supervisor.is_buried.wait(timeout):
            raise subprocess.TimeoutExpired(["compilepool supervisor"], timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Kill the process. Everything that it has started dies with it."""
        self._supervisor.kill()

    def terminate(self) -> None:
        """Send SIGTERM to the process, unless it has ended."""
        if (pidfd := self._supervisor.pidfd) >= 0:
            pidfds.send_signal(pidfd, signal.SIGTERM)
