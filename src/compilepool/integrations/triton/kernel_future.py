"""`KernelFuture`: the future of a kernel that a worker compiles, and the program then loads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from compilepool.client.future import CompileFuture
from compilepool.integrations.triton.worker.compile_job import Compiled
from compilepool.light_typing import Any, lazy_annotations

_log = logging.getLogger(__name__)


@lazy_annotations
class KernelFuture(Future[Any]):
    """The future of a Triton `CompiledKernel`.

    It is done when the kernel is in Triton's cache. Whoever asks for the result loads it from
    there, in a millisecond, in the thread that asks.

    Attributes:
        job: the future of the job, with its `name` and `record`; None: the kernel was in the cache.

    Args:
        name: what the kernel is called in messages.
        load: `triton.compile` for this kernel, in this process.
        job: see above.
    """

    def __init__(
        self, name: str, load: Callable[[], Any], job: CompileFuture[Compiled] | None
    ) -> None:
        super().__init__()
        self.job = job
        self._name = name
        self._load = load
        if job is None:
            self.set_result(None)
        else:
            job.add_done_callback(self._job_ended)

    def cancel(self) -> bool:
        """Cancel the job, even if it runs. Returns whether it is cancelled."""
        return self.job is not None and self.job.cancel()

    def running(self) -> bool:
        """Whether a worker compiles the kernel."""
        return self.job is not None and self.job.running()

    def result(self, timeout: float | None = None) -> Any:
        """Return the kernel.

        Args:
            timeout: the longest time to wait for the worker, in seconds; None: until it has ended.

        Raises:
            CompilePoolError: the worker crashed, or went over a limit, or the pool was shut down.
            CancelledError: the job was cancelled.
            TimeoutError: the job has not ended in time.
            Exception: Triton refuses the kernel, or it cannot be loaded.
        """
        compiled: Compiled | None = super().result(timeout)
        kernel = self._load()
        if compiled is not None and kernel.hash != compiled.hash:
            _log.warning(
                "%s was compiled again in this process, because its cache key is another one in"
                ' workers; see "What does not work" in compilepool\'s docs/triton.md',
                self._name,
            )
        return kernel

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that `result` raises; None if it returns.

        Args:
            timeout: as for `result`.

        Raises:
            CancelledError, TimeoutError: as `result`.
        """
        try:
            self.result(timeout)
        except (CancelledError, TimeoutError):
            raise
        except BaseException as error:  # noqa: BLE001 - the caller asks for the exception
            return error
        return None

    def _job_ended(self, job: Future[Compiled]) -> None:
        if job.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        self.set_running_or_notify_cancel()
        error = job.exception()
        if error is None:
            self.set_result(job.result())
        else:
            self.set_exception(error)
