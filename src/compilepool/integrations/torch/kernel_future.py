"""The futures that Inductor gets: of a kernel, and of the first worker."""

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
from torch._inductor.exc import CppCompileError

from compilepool.client.future import CompileFuture
from compilepool.errors import PoolClosed, RemoteTraceback, WorkerCrashed
from compilepool.integrations.torch.cpp_kernels import cpp_kernel_name, is_cpp_job

_log = logging.getLogger(__name__)

_WORKER = "_worker_"  # the names of the functions that Inductor runs in workers begin so
_OF_FLEX_GEMM = "_compile_in_worker"


def kernel_name(function: Callable[..., Any], args: Sequence[Any]) -> str | None:
    """Return the name of the kernel that a job compiles; None if the job compiles none.

    Args:
        function: the function that the job calls. `_worker_compile_triton` takes a partial that has
            the kernel's name as its first argument. `_worker_compile_pycodecache_kernel`, of
            CuteDSL, FlyDSL and NVGEMM (torch/_inductor/runtime/compile_tasks.py), and
            `_worker_nvgemm_autotuning_precompile` take the name itself. `_compile_in_worker`
            (torch/_inductor/kernel/flex_gemm/compile_pool.py) takes the name of a function, and the
            path of the file that it makes, which is named by a hash.
        args: the arguments of the function.
    """
    name = getattr(function, "__name__", "")
    if name == _OF_FLEX_GEMM:
        return _name_of_flex_gemm(args)
    if not args or not name.startswith(_WORKER):
        return None
    if is_cpp_job(function):
        return cpp_kernel_name(args)
    first = args[0]
    if isinstance(first, functools.partial) and first.args:
        first = first.args[0]
    return first if isinstance(first, str) else None


def _name_of_flex_gemm(args: Sequence[Any]) -> str | None:
    function, path = (args[4], args[6]) if len(args) > 6 else (None, None)
    if not isinstance(function, str) or not isinstance(path, str):
        return None
    sha = os.path.basename(path).partition(".")[0]
    return f"{function.removeprefix('_compile_')}_{sha[:12]}"  # QuACK's messages have as much of it


def returns_kernel(function: Callable[..., Any]) -> bool:
    """Whether a job's result is what the program needs of the kernel.

    Jobs of autotuning only fill a cache. If one fails, Inductor compiles that choice by itself, or
    leaves it out.
    """
    return getattr(function, "__name__", "").startswith("_worker_compile_")


class KernelFailed(SubprocException):  # type: ignore[misc] # torch is not typed
    """A job of Inductor's failed. The text has the pool's report.

    Attributes:
        details: the report, or the traceback of the exception that the job raised.
        name: the name of the kernel.
        error: the exception of the `CompileFuture`: a `CompilePoolError`, or the exception that the
            job raised.
    """

    def __init__(self, details: str, name: str, error: BaseException) -> None:
        super().__init__(details, name)
        self.name = name
        self.error = error

    def with_name(self, name: str) -> KernelFailed:
        """Return the same error for a kernel of another name (torch calls this)."""
        return KernelFailed(self.details, name, self.error)

    def __reduce__(self) -> tuple[object, ...]:
        error = self.error
        try:
            pickle.dumps(error)
        except Exception:  # noqa: BLE001 - the job's exception may raise anything here
            error = RuntimeError(self.details)
        return KernelFailed, (self.details, self.name, error)


class WorkersUnavailable(RuntimeError):
    """No worker could start. Inductor then compiles in its own process."""


class KernelFuture(Future[Any]):
    """The future of a job as Inductor expects it: a failure is a `KernelFailed`.

    Args:
        job: the future of the job.
        run_here: a function that does the job's work in this process, if the worker crashes; None:
            a crash fails the job.
        finish: a function that makes the result of the job's result, in the thread that asks for
            it; None: that is the result.
    """

    def __init__(
        self,
        job: CompileFuture[Any],
        run_here: Callable[[], Any] | None = None,
        finish: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self._job = job
        self._pid = os.getpid()
        self._run_here = run_here
        self._finish = finish
        self._lock = threading.Lock()
        self._done_here: Future[Any] | None = None
        job.add_done_callback(self._job_ended)

    def cancel(self) -> bool:
        """Cancel the job, even if it runs. Returns whether it is cancelled."""
        return self._job.cancel()

    def running(self) -> bool:
        """Whether a worker runs the job."""
        return self._job.running()

    def result(self, timeout: float | None = None) -> Any:
        """Return the result of the job; after a crash of the worker, that of `run_here`.

        Args:
            timeout: the longest time to wait for the worker, in seconds; None: until the job has
                ended.

        Raises:
            KernelFailed: the job failed.
            PoolClosed: the pool was shut down before the job ended.
            TimeoutError: the job has not ended in time.
        """
        if self._pid != os.getpid() and not self.done():
            # A forked child: the job's future has ended here, with an error that says why.
            return self._job.result(timeout)
        try:
            result = super().result(timeout)
        except KernelFailed as failure:
            if self._run_here is None or not isinstance(failure.error, WorkerCrashed):
                raise
            return self._once(functools.partial(_run_here, self._run_here, failure))
        if self._finish is None:
            return result
        return self._once(functools.partial(self._finish, result))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that `result` raises; None if it returns.

        Args:
            timeout: the longest time to wait for the worker, in seconds; None: until the job has
                ended.

        Raises:
            CancelledError: the job was cancelled.
            TimeoutError: the job has not ended in time.
        """
        try:
            self.result(timeout)
        except (CancelledError, TimeoutError):
            raise
        except BaseException as error:  # noqa: BLE001 - the caller asks for the exception
            return error
        return None

    def _once(self, work: Callable[[], Any]) -> Any:
        """Do this in the first thread that asks for the result. All threads get what it returns."""
        with self._lock:
            if self._done_here is None:
                self._done_here = Future()
                try:
                    self._done_here.set_result(work())
                except BaseException as error:  # noqa: BLE001 - the future raises it
                    self._done_here.set_exception(error)
        return self._done_here.result()

    def _job_ended(self, job: Future[Any]) -> None:
        if job.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        self.set_running_or_notify_cancel()
        error = job.exception()
        if error is None:
            self.set_result(job.result())
        elif isinstance(error, PoolClosed | CppCompileError):
            # Unchanged: the kernel did not fail, or Inductor expects this error of a thread of its.
            self.set_exception(error)
        else:
            self.set_exception(KernelFailed(_details(error), self._job.name, error))


def _run_here(work: Callable[[], Any], failure: KernelFailed) -> Any:
    first_line = str(failure.error).partition("\n")[0]
    _log.warning("compiling %s in this process: %s", failure.name, first_line)
    env = dict(os.environ)
    try:
        # Pickled and unpickled, as a worker's result: Inductor expects such an object.
        return pickle.loads(pickle.dumps(work()))
    finally:
        _restore(env)  # the job itself sets variables as they were at its submission


def _restore(env: dict[str, str]) -> None:
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    os.environ.update(env)


def _details(error: BaseException) -> str:
    """Return the traceback of an exception that the job raised; of a pool's error, its report."""
    cause = error.__cause__
    return cause.text if isinstance(cause, RemoteTraceback) else str(error)


def ready_future(first_worker: Future[bool]) -> Future[str]:
    """Make the future that answers Inductor's question whether there is a worker.

    Args:
        first_worker: the pool's future of its first worker.

    Returns:
        A future. Its result is "ready" when a worker is there, or when nobody should wait for one
        any more. Its exception is a `WorkersUnavailable`, which Inductor handles, if no worker can
        start.
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
