"""`SubprocPool` of torch/_inductor/compile_worker/subproc_pool.py, on a `CompilePool`.

The exceptions, the kinds and the pickler are those of the installed torch, and so is every other
name of that module. `except` and `isinstance` in torch's own code keep working.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, Never, ParamSpec, TypeAlias, TypeVar

import torch
from torch._inductor import config
from torch._inductor.compile_worker import subproc_pool as _reference
from torch._inductor.compile_worker.subproc_pool import (
    SubprocException,
    SubprocKind,
    SubprocPickler,
)
from torch._logging import trace_structured

from compilepool.client.future import CompileFuture
from compilepool.client.internals import (
    PROCESS_VARIABLES,
    end_without_waiting,
    first_worker,
    supervisor_of,
)
from compilepool.client.pool import CompilePool
from compilepool.errors import PoolClosed
from compilepool.integrations.torch.compile_worker.timer import Timer
from compilepool.integrations.torch.cpp_kernels import is_cpp_job
from compilepool.integrations.torch.flight import Flight, flight_of
from compilepool.integrations.torch.job_slices import JobSlices
from compilepool.integrations.torch.kernel_future import (
    KernelFuture,
    kernel_name,
    ready_future,
    returns_kernel,
)
from compilepool.integrations.torch.settings import is_shared
from compilepool.integrations.torch.sidecar import Sidecar
from compilepool.integrations.torch.status_reports import StatusReports
from compilepool.integrations.torch.takeover.pool_for_torch import EnvAtStart, OnCrash, make_pool
from compilepool.integrations.torch.wait_counters import WaitCounters
from compilepool.integrations.torch.worker.compile_job import compile_kernel
from compilepool.integrations.torch.worker.cpp_job import compile_cpp
from compilepool.integrations.torch.worker_log import WorkerLog, output_env

__all__ = [
    "AnyPool",
    "SubprocException",
    "SubprocKind",
    "SubprocPickler",
    "SubprocPool",
    "TestException",
    "raise_testexc",
]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class SubprocPool:
    """The pool in which `torch._inductor.async_compile` compiles.

    It differs from torch's in two ways. A job that crashes its worker fails alone, with a report.
    When the sidecar dies, the next job starts another.

    Args:
        nprocs: the number of jobs that may run at once.
        pickler: pickles jobs and results; None: pickle, and cloudpickle for what pickle cannot do.
        kind: the way in which workers start.
        quiesce: whether the workers end after `torch._inductor.config.quiesce_async_compile_time`
            seconds without a job, until the next job.
        pool: a pool that has started already; None: make a new one, whose jobs fail when the
            sidecar dies, as in torch's.
        shared: whether `pool` is shared, or the new pool is to be: then ranks of this node compile
            each kernel once. None: as the environment variable COMPILEPOOL_SHARED says.
        env: the environment with which `pool` was started.
        on_crash: "in_process": a kernel whose worker crashed is compiled in this process, when
            somebody asks for its result. "raise": it fails.
    """

    def __init__(
        self,
        nprocs: int,
        pickler: SubprocPickler | None = None,
        kind: SubprocKind = SubprocKind.FORK,
        quiesce: bool = False,
        *,
        pool: CompilePool | None = None,
        shared: bool | None = None,
        env: EnvAtStart | None = None,
        on_crash: OnCrash = "raise",
    ) -> None:
        self.pickler = pickler or SubprocPickler()
        self.kind = kind
        output = output_env()
        if config.worker_suppress_logging:
            _reference.log.info("Suppressing compile worker output due to config")
        self._shares_kernels = is_shared(shared)
        self._env = env or EnvAtStart(shared=self._shares_kernels)
        self.pool = pool or make_pool(
            nprocs,
            shared=self._shares_kernels,
            start_method=kind.value,
            serializer=pickler,
            env=output,
            resubmit=False,
        )
        self._log = WorkerLog(output, is_new=pool is None)
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._ready: Future[str] | None = None
        self._process: Sidecar | None = None
        self.running = True
        self._counters = WaitCounters()
        self._status_reports = StatusReports(self.pool, _trace)
        self._slices = JobSlices(_trace)
        self.timer = Timer(config.quiesce_async_compile_time, self.quiesce) if quiesce else None
        try:
            self.wakeup()
            self._process = self.process
        except BaseException:
            self.shutdown()
            raise

    def submit(self, job_fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a job in a worker.

        Returns:
            The future of the job. A failure is a `SubprocException`. Its attribute `error` is the
            exception that the job or the `CompilePool` raised. An error of g++ is the
            `CppCompileError` itself.

        Raises:
            RuntimeError: the pool was shut down.
            SerializationError: the job cannot be pickled.
        """
        if _is_readiness_check(job_fn):
            return self._readiness()
        name = kernel_name(job_fn, args)
        here = functools.partial(job_fn, *args, **kwargs)
        call: functools.partial[Any] = here
        flight = None
        if is_cpp_job(job_fn):
            call = functools.partial(compile_cpp, *here.args, **here.keywords)
        if getattr(job_fn, "__name__", "") == "_worker_compile_triton":
            has_cuda = torch.cuda.is_available()
            call = functools.partial(compile_kernel, has_cuda, *here.args, **here.keywords)
            if self._shares_kernels:
                flight = flight_of(has_cuda, here.args, here.keywords)
        job = self._submit(name, call, flight)
        # Last, so that its callbacks run after all those that `_submit` adds.
        is_run_here = returns_kernel(job_fn) and self._on_crash == "in_process"
        return KernelFuture(
            job,
            here if is_run_here else None,
            functools.partial(self._finish, name, call, flight) if flight else None,
        )

    def _submit(
        self, name: str | None, call: Callable[[], Any], flight: Flight | None
    ) -> CompileFuture[Any]:
        changes = self._env.changes()
        flight_key = None
        if flight is not None:
            flight_key = flight.key
            # Compiling opens no device and meets no other rank, and `compile_kernel` sets the rest.
            unneeded = PROCESS_VARIABLES - {"TMPDIR"} | flight.env.keys()
            changes = {name: value for name, value in changes.items() if name not in unneeded}
            # They are in the flight's key, and a rank's own differ by its device.
            changes |= dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"))
        job = self.pool.options(name=name, env=changes, flight_key=flight_key).submit(call)
        self._counters.job_submitted(job)
        self._status_reports.job_submitted(job)
        self._slices.job_submitted(job)
        job.add_done_callback(self._log.job_ended)
        if self.timer:
            job.add_done_callback(self._job_ended)
        return job

    def _finish(
        self, name: str | None, call: Callable[[], Any], flight: Flight, result: Any
    ) -> Any:
        """Return the result for this process's device, of a job that may be another rank's.

        If torch is not as `own_device.py` knows it, the job runs again, and no kernel is shared any
        more.
        """
        try:
            from compilepool.integrations.torch.own_device import for_own_device

            return for_own_device(result, flight.source)
        except Exception:  # noqa: BLE001 - torch's code may raise anything
            if self._shares_kernels:
                _log.warning("kernels are not shared with other ranks any more", exc_info=True)
            self._shares_kernels = False
            return KernelFuture(self._submit(name, call, None)).result()

    def quiesce(self) -> None:
        """Let all jobs end, then end the workers. The next job or `wakeup` starts them again."""
        if self.running:
            self.pool.quiesce(keep_warm=True)
            self._counters.quiesced()

    def wakeup(self) -> None:
        """Start the workers."""
        self._ready = ready_future(first_worker(self.pool))
        if self.timer:
            self.timer.record_call()  # so that they quiesce again if no job comes

    def shutdown(self, wait: bool = True) -> None:
        """End all jobs and all processes. May be called twice.

        Args:
            wait: whether to return only when all processes are gone, which takes a moment at most.
        """
        with self._lock:
            if not self.running:
                return
            self.running = False
        if self.timer:
            self.timer.quit()
        self._counters.closed()
        self._status_reports.close()
        if wait:
            self.pool.kill_workers()
        else:
            end_without_waiting(self.pool)
        self._log.close()

    @property
    def process(self) -> Sidecar:
        """The sidecar: the supervisor of the pool. After its death, the next job starts another.

        Raises:
            PoolClosed: the pool was shut down and has no sidecar any more.
        """
        supervisor = supervisor_of(self.pool)
        if supervisor is not None and (not self._process or self._process.pid != supervisor.pid):
            self._process = Sidecar(supervisor)
        if self._process is None:
            raise PoolClosed("this pool has no sidecar any more: it was shut down")
        return self._process

    def _readiness(self) -> Future[Any]:
        """Answer the job by which Inductor asks whether there is a worker. The job itself does
        nothing.
        """
        if self._ready is None:
            self.wakeup()
        assert self._ready is not None
        return self._ready

    def _job_ended(self, _job: object) -> None:
        if self.timer:
            self.timer.record_call()


AnyPool: TypeAlias = ProcessPoolExecutor | SubprocPool | ThreadPoolExecutor


class TestException(_reference.TestException):  # type: ignore[misc] # torch is not typed
    """Raised by `raise_testexc`. A test may expect it under torch's name or under this one."""

    __test__ = False  # pytest would collect it as a test

    def __str__(self) -> str:
        return f"in place of {_reference.__name__}.TestException"


def raise_testexc() -> Never:
    """Raise a `TestException`: a job for tests of the pool."""
    raise TestException


def _trace(*args: Any, **of: Any) -> None:
    trace_structured(*args, **of)  # looked up at each call, because torch's tests replace it


def _is_readiness_check(function: Callable[..., object]) -> bool:
    return getattr(function, "__qualname__", "") == "AsyncCompile._get_ready"


def __getattr__(name: str) -> object:
    return getattr(_reference, name)
