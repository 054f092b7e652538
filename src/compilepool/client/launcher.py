"""Starts the supervisor process, and buries it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from compilepool.client.cpus import usable_cpus
from compilepool.options import PoolOptions
from compilepool.wire import kernel
from compilepool.wire.channel import Channel
from compilepool.wire.config import PoolConfig
from compilepool.wire.spawn import python_command, spawn


class Snapshot:
    """What this process is like when a pool starts; all processes of the pool are made alike.

    Attributes:
        env: the environment.
        config: the rest, with the pool's options.
    """

    def __init__(self, options: PoolOptions) -> None:
        try:
            cwd = os.getcwd()
        except OSError:
            cwd = ""
        self.env = dict(os.environ)
        self.config = PoolConfig(
            max_workers=usable_cpus() if options.max_workers is None else options.max_workers,
            start_method=options.start_method,
            preload=list(options.preload),
            # As multiprocessing does, for the processes that run user code.
            python_flags=subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
            sys_path=[os.fspath(path) for path in sys.path if isinstance(path, str | os.PathLike)],
            argv=list(sys.argv),
            cwd=cwd,
        )


class SupervisorProcess:
    """One supervisor, a child of this process, started by exec.

    Args:
        env: the environment of all processes of the pool.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self.channel, theirs = Channel.pair()
        lease = os.pidfd_open(os.getpid())
        try:
            # Isolated, and without the site module: nothing of the user's can slow it or break it.
            command = python_command(["-I", "-S"], "supervisor")
            self.pid = spawn(command, env, [theirs.fileno(), lease])
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()
            os.close(lease)
        self.pidfd = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """Kill it. All that it has started ends with it."""
        kernel.send_signal(self.pidfd, signal.SIGKILL)

    def bury(self, patience_s: float) -> int | None:
        """Wait for its end, kill it if that takes longer than `patience_s`, and reap it.

        Returns:
            Its exit code, negated signal number if a signal killed it, None if unknown.
        """
        if not kernel.wait_dead(self.pidfd, patience_s):
            self.kill()
            kernel.wait_dead(self.pidfd, patience_s)
        return kernel.reap(self.pidfd)

    def close(self) -> None:
        """Close the descriptors. They may be gone: some programs close all that they find."""
        with contextlib.suppress(OSError):
            self.channel.close()
        with contextlib.suppress(OSError):
            os.close(self.pidfd)
