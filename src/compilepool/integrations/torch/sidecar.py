"""The supervisor, as those see it who know `SubprocPool.process`."""

from __future__ import annotations

import os
import signal
import subprocess
import weakref

from compilepool.client.launcher import SupervisorProcess
from compilepool.wire import kernel

_BURY_S = 5.0


class Sidecar:
    """As much of `subprocess.Popen` as makes sense for a process that the pool itself reaps.

    Args:
        supervisor: the process.
    """

    def __init__(self, supervisor: SupervisorProcess) -> None:
        self._supervisor = supervisor
        self.pid = supervisor.pid
        # Of our own: the pool closes its one when it has reaped the process.
        self._pidfd = os.dup(supervisor.pidfd)
        weakref.finalize(self, os.close, self._pidfd)

    @property
    def returncode(self) -> int | None:
        """The exit code, negated signal number if a signal killed it; None until that is known."""
        return self._supervisor.exitcode

    def poll(self) -> int | None:
        """The same."""
        if kernel.wait_dead(self._pidfd, 0):
            self._supervisor.is_buried.wait(_BURY_S)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end. Returns the exit code.

        Args:
            timeout: how long, in seconds; None: until it ends.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        if not kernel.wait_dead(self._pidfd, timeout):
            raise subprocess.TimeoutExpired(["compilepool supervisor"], timeout or 0.0)
        return self.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        kernel.send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill it; all that it has started ends with it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)
