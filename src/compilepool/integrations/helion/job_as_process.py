"""`JobAsProcess`: a job of the pool, where Helion expects a process."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from concurrent.futures import wait

from compilepool.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compilepool.client.future import CompileFuture


class JobAsProcess:
    """As much of `multiprocessing.Process` as Helion's `PrecompileFuture` uses.

    Args:
        submit: submits the job.
        wait_ready: waits until there are workers, and raises what keeps them from starting.
    """

    pid = None
    """Helion signals the group of a process that has a PID, and calls `terminate` otherwise."""

    def __init__(
        self, submit: Callable[[], CompileFuture[Any]], wait_ready: Callable[[], object]
    ) -> None:
        self.wait_ready = wait_ready
        self._submit = submit
        self._future: CompileFuture[Any] | None = None
        self.sentinel = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """A descriptor that is ready to be read when the job has ended."""
        weakref.finalize(self, os.close, self.sentinel)

    def start(self) -> None:
        """Submit the job."""
        self._future = self._submit()
        self._future.add_done_callback(self._notify)

    def is_alive(self) -> bool:
        """Whether the job has been submitted and has not ended."""
        return self._future is not None and not self._future.done()

    @property
    def exitcode(self) -> int | None:
        """0: it has compiled; 1: it has not; None: it has not ended yet."""
        if self._future is None or not self._future.done():
            return None
        if self._future.cancelled() or self._future.exception() is not None:
            return 1
        return 0

    @property
    def error(self) -> BaseException | None:
        """Why the job has failed; None: it has not, or was cancelled."""
        if self._future is None or not self._future.done() or self._future.cancelled():
            return None
        return self._future.exception()

    @property
    def output(self) -> str | None:
        """The end of what the job has written; None: nothing."""
        record = None if self._future is None else self._future.record
        return None if record is None else record.log or None

    def join(self, timeout: float | None = None) -> None:
        """Wait until the job has ended.

        Args:
            timeout: the longest time to wait, in seconds; None: no limit.
        """
        if self._future is not None:
            wait([self._future], timeout)

    def terminate(self) -> None:
        """End the job, with everything that it has started."""
        if self._future is not None:
            self._future.cancel()

    kill = terminate

    def _notify(self, _: object) -> None:
        os.eventfd_write(self.sentinel, 1)
