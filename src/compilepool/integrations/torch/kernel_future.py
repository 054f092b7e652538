"""The future of a job, as Inductor expects it."""

from __future__ import annotations

import functools
import logging
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from torch._inductor.compile_worker.subproc_pool import SubprocException

from compilepool.client.future import CompileFuture
from compilepool.errors import PoolClosed, RemoteTraceback, WorkerCrashed

_PREFIX = "_worker_"  # of the functions that Inductor has workers run


def kernel_name(function: Callable[..., Any], args: Sequence[Any]) -> str | None:
    """The name of the kernel; None if this job compiles none.

    Args:
        function: what the job calls, such as `_worker_compile_triton`, which takes a partial of a
            function of the kernel's name, or `_worker_compile_pycodecache_kernel`, which takes the
            name (torch/_inductor/runtime/compile_tasks.py).
        args: its arguments.
    """
    if not args or not getattr(function, "__name__", "").startswith(_PREFIX):
        return None
    first = args[0]
    if isinstance(first, functools.partial) and first.args:
        first = first.args[0]
    return first if isinstance(first, str) else None


_log = logging.getLogger(__name__)


class KernelFailed(SubprocException):  # type: ignore[misc] # torch is not typed
    """A job of Inductor's has failed; the text has the report of the pool.

    Attributes:
        details: the report, or the traceback of the job.
        name: the kernel.
        error: what the future of the `CompilePool` has: a `CompilePoolError`, or what the job
            itself has raised.
    """

    def __init__(self, details: str, name: str, error: BaseException) -> None:
        super().__init__(details, name)
        self.name = name
        self.error = error

    def with_name(self, name: str) -> KernelFailed:
        """The same, of the kernel of this name."""
        return KernelFailed(self.details, name, self.error)

    def __reduce__(self) -> tuple[object, ...]:
        error = self.error
        try:
            pickle.dumps(error)
        except Exception:  # noqa: BLE001 - what a job has raised may be anything
            error = RuntimeError(self.details)
        return KernelFailed, (self.details, self.name, error)


class WorkersUnavailable(RuntimeError):
    """No worker could be started: what Inductor waits for, it can do without."""


class KernelFuture(Future[Any]):
    """Ends as a job ends, but its errors are Inductor's.

    Args:
        job: the job's future.
        run_here: does in this process what the job does; for a job whose worker crashed. None:
            such a job fails.
    """

    def __init__(self, job: CompileFuture[Any], run_here: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self._job = job
        self._pid = os.getpid()
        self._run_here = run_here
        self._lock = threading.Lock()
        self._here: Future[Any] | None = None
        job.add_done_callback(self._job_ended)

    def cancel(self) -> bool:
        """Cancel the job, also if it runs. Returns whether it is cancelled now."""
        return self._job.cancel()

    def running(self) -> bool:
        """Whether a worker has the job."""
        return self._job.running()

    def result(self, timeout: float | None = None) -> Any:
        """As any future's; but if the worker has crashed, what `run_here` returns, or raises.

        Args:
            timeout: how long to wait for the worker, in seconds; None: until the job has ended.
        """
        if self._pid != os.getpid() and not self.done():
            return self._job.result(timeout)  # it has ended, since it belongs to another process
        try:
            return super().result(timeout)
        except KernelFailed as failure:
            if self._run_here is None or not isinstance(failure.error, WorkerCrashed):
                raise
            return self._result_of_here(self._run_here, failure)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As any future's, of what `result` does."""
        try:
            self.result(timeout)
        except (CancelledError, TimeoutError):
            raise
        except BaseException as error:  # noqa: BLE001 - that is what is asked for
            return error
        return None

    def _result_of_here(self, run_here: Callable[[], Any], failure: KernelFailed) -> Any:
        with self._lock:
            if self._here is None:
                first_line = str(failure.error).partition("\n")[0]
                _log.warning("compiling %s in this process: %s", failure.name, first_line)
                self._here = Future()
                env = dict(os.environ)
                try:
                    # By way of pickle, as from a worker: Inductor expects what that leaves.
                    self._here.set_result(pickle.loads(pickle.dumps(run_here())))
                except BaseException as error:  # noqa: BLE001 - it is the outcome
                    self._here.set_exception(error)
                finally:
                    _restore(env)  # the job sets variables as they were when it was submitted
        return self._here.result()

    def _job_ended(self, job: Future[Any]) -> None:
        if job.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        self.set_running_or_notify_cancel()
        error = job.exception()
        if error is None:
            self.set_result(job.result())
        elif isinstance(error, PoolClosed):
            self.set_exception(error)  # nobody's fault: it is no failure of a kernel
        else:
            self.set_exception(KernelFailed(_details(error), self._job.name, error))


def _restore(env: dict[str, str]) -> None:
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    os.environ.update(env)


def _details(error: BaseException) -> str:
    """The traceback in the worker, of what a job has raised; else the report."""
    cause = error.__cause__
    return cause.text if isinstance(cause, RemoteTraceback) else str(error)


def ready_future(first_worker: Future[bool]) -> Future[str]:
    """What Inductor's question for a worker is answered by, from `internals.first_worker`.

    Returns:
        "ready" when there is one, or when it is not to be waited for any more; or
        `WorkersUnavailable`, which Inductor knows to handle, with why there cannot be any.
    """
    ready: Future[str] = Future()

    def tell(first: Future[bool]) -> None:
        error = first.exception()
        if error is None:
            ready.set_result("ready")
        else:
            unavailable = WorkersUnavailable(str(error))
            unavailable.__cause__ = error
            ready.set_exception(unavailable)

    first_worker.add_done_callback(tell)
    return ready
