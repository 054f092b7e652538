"""The supervisor, as those see it who know `SubprocPool.process`."""

from __future__ import annotations

import signal
import subprocess

from compilepool.client.session.supervisor_process import SupervisorProcess
from compilepool.linux import pidfds


class Sidecar:
    """As much of `subprocess.Popen` as makes sense for a process that the pool itself reaps.

    Args:
        supervisor: the process.
    """

    def __init__(self, supervisor: SupervisorProcess) -> None:
        self._supervisor = supervisor
        self.pid = supervisor.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negated signal number if a signal killed it; None if it lives."""
        return self._supervisor.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end. Returns the exit code.

        Args:
            timeout: how long, in seconds; None: until it ends.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        if not self._supervisor.is_buried.wait(timeout):
            raise subprocess.TimeoutExpired(["compilepool supervisor"], timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Kill it, unless it has ended; all that it has started ends with it."""
        self._supervisor.kill()

    def terminate(self) -> None:
        """Send it SIGTERM, unless it has ended."""
        if (pidfd := self._supervisor.pidfd) >= 0:
            pidfds.send_signal(pidfd, signal.SIGTERM)
