"""What tests look at behind the face of `ProcessPoolExecutor`, as far as we have it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil

from compilepool import CompilePool
from compilepool.client.internals import supervisor_of
from compilepool.errors import SerializationError


class Worker:
    """A worker process, with what tests use of `multiprocessing.Process`."""

    def __init__(self, process: psutil.Process) -> None:
        self.pid = process.pid
        self._process = process

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def join(self, timeout: float | None = 30) -> None:
        """Wait until the process is gone.

        Raises:
            psutil.TimeoutExpired: it is not.
        """
        self._process.wait(timeout)

    @property
    def exitcode(self) -> int | None:
        """None while the process is there, otherwise 0: its parent alone knows more."""
        return None if self._process.is_running() else 0


class ManagerThread:
    """A pool's supervisor, with what tests use of `ProcessPoolExecutor._executor_manager_thread`.

    It holds no reference to the pool, so it does not keep it.
    """

    def __init__(self, pool: CompilePool) -> None:
        supervisor = supervisor_of(pool)
        self._process = None if supervisor is None else psutil.Process(supervisor.pid)

    def join(self, timeout: float | None = 30) -> None:
        """Wait until the supervisor is gone, and with it every process of the pool.

        Raises:
            psutil.TimeoutExpired: it is not.
        """
        if self._process is not None:
            self._process.wait(timeout)

    def is_alive(self) -> bool:
        """Whether the supervisor is there."""
        return self._process is not None and self._process.is_running()


class CallQueue:
    """What tests use of `ProcessPoolExecutor._call_queue`. We have none: `submit` sends calls."""

    def join_thread(self) -> None:
        """Return at once: there is no thread."""


def submit_late_errors(submit: Callable[..., Future[Any]], /, *args: Any, **kwargs: Any) -> Any:
    """Submit as others do: the future raises what cannot be pickled, where our `submit` does."""
    try:
        return submit(*args, **kwargs)
    except SerializationError as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def workers_of(pool: CompilePool) -> dict[int, Worker]:
    """The workers that a pool has now, by their pids."""
    supervisor = supervisor_of(pool)
    if supervisor is None:
        return {}
    return {process.pid: Worker(process) for process in worker_processes(supervisor.pid)}


def worker_processes(pid: int) -> list[psutil.Process]:
    """The workers among all processes below one."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).strip() == "compilepool worker":
                    found.append(process)
    return found
