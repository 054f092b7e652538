"""`CompilePool`, the executor."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from compilepool.any_process.identity import in_toplevel_process
from compilepool.client.future import CompileFuture
from compilepool.client.options import AS_THE_POOL, AsThePool, JobOptions, PoolOptions
from compilepool.errors import NestedPoolError, UnsupportedPlatform
from compilepool.light_typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from compilepool.linux.requirements import KernelTooOld, check_platform

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress

    from compilepool.client.job_dump import JobDump
    from compilepool.observe.stats import PoolStats
    from compilepool.wire.serializers import Serializer
    from compilepool.wire.submission import JobTerms

P = ParamSpec("P")
T = TypeVar("T")


class CompilePool(Executor):
    """A pool of worker processes for compilations, as a `concurrent.futures.Executor`.

    The processes start with the first job, or by `warm_up`. They get this process's `sys.path`,
    working directory and environment as they are then. A worker that crashes fails the job that it
    ran, and no other. None of the processes, nor anything that jobs start, outlives this one,
    however it ends.

    As a context manager, a normal end of the block and an ordinary exception wait for all jobs, as
    with any executor; KeyboardInterrupt and SystemExit end them at once.

    Args:
        max_workers: how many jobs may run at once; None: the number of CPUs that this process may
            use, by its affinity and its cgroup's quota.
        preload: names of modules that are imported once, before the workers are forked, so that no
            job pays for it. They must neither start threads nor open a GPU; if one does, the pool
            logs a warning and goes on as with "spawn".
        initializer: called in each worker before its first job. If it raises, all jobs that do not
            run yet, and all later ones, fail with its exception.
        initargs: its arguments.
        start_method: "fork": workers are forked from a process that has done the preload, in
            milliseconds; "spawn": each is a new interpreter and does the preload by itself.
        serializer: pickles calls and results in place of pickle and cloudpickle; see
            `compilepool.wire.serializers.Serializer`. It is itself pickled to the workers.
        capture: keep the end of what each job and its children write to their output and error
            output, 64 KiB, in the future's `record.log` and on every error. False: it goes where
            this process's goes.
        log_dir: a folder in which each job that writes anything gets a file with all of it.
        native_tracebacks: a worker that crashes is held for the time that it takes to read its
            native stacks, up to 2 s; other jobs are not. False: it dies at once, with Python's
            stack only, and leaves a core file if the limits are such.
        keep_crashes: a job that crashes is kept in a folder, private to the user, for `compilepool
            replay`; see `compilepool crashes`. With it go the environment variables.
        timeout: for how long a job may run, in seconds, counted from when its worker begins it;
            None: as long as it likes.
        memory_limit: how much memory a job may take, in bytes or as text such as "4GiB": what it
            adds to its worker, and what all processes have that it starts. None: all.
        nice: how much nicer than this process workers are to others, 0 to 19; see nice(2).
        cpus: numbers of the CPUs that workers may use; None: those that this process may use.
        pin_workers: each worker stays on one of those CPUs.
        env: environment variables of workers that differ from this process's; None: unset. Unless
            they are set here or in this process, `OMP_NUM_THREADS` and its like are set to a fair
            share of the CPUs.
        min_workers: how many workers are there from the first job on, and stay when idle.
        idle_timeout: after how many seconds without a job a worker goes, but for `min_workers`;
            without any, the pool quiesces. None: never.
        max_jobs_per_worker: after how many jobs a worker is replaced, by one that has started
            by then. None: never.
        max_worker_memory: from how much memory on a worker is replaced between jobs, likewise, in
            bytes or as text: what it shares with no other process. None: never.
        progress: show on the terminal of error output, if that is one, how many jobs are done, and
            what runs; or a `rich.progress.Progress` to show it in.
        trace: a file for a trace in Chrome's format, to be opened in https://ui.perfetto.dev: a
            track for each worker, with jobs and phases. It is whole JSON after each job, also when
            the program is killed.
        resubmit: when the supervisor dies, what has not ended runs again under the next one, once.
            False: it fails with `SupervisorDied`, for jobs that must not run twice.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names all that are.
        NestedPoolError: this process is a worker.
        SerializationError: serializer, initializer or initargs cannot be pickled.
        OSError: the trace cannot be written.
        UnsupportedPlatform: not Linux, or it lacks what the pool needs.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        preload: Sequence[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        start_method: Literal["fork", "spawn"] = "fork",
        serializer: Serializer | None = None,
        capture: bool = True,
        log_dir: str | os.PathLike[str] | None = None,
        native_tracebacks: bool = True,
        keep_crashes: bool = True,
        timeout: float | None = None,
        memory_limit: int | str | None = None,
        nice: int = 0,
        cpus: Sequence[int] | None = None,
        pin_workers: bool = False,
        env: Mapping[str, str | None] | None = None,
        min_workers: int = 0,
        idle_timeout: float | None = None,
        max_jobs_per_worker: int | None = None,
        max_worker_memory: int | str | None = None,
        progress: bool | Progress = False,
        trace: str | os.PathLike[str] | None = None,
        resubmit: bool = True,
    ) -> None:
        options = PoolOptions(
            max_workers=max_workers,
            preload=preload,
            initializer=initializer,
            initargs=initargs,
            start_method=start_method,
            serializer=serializer,
            capture=capture,
            log_dir=log_dir,
            native_tracebacks=native_tracebacks,
            keep_crashes=keep_crashes,
            timeout=timeout,
            memory_limit=memory_limit,
            nice=nice,
            cpus=cpus,
            pin_workers=pin_workers,
            env={} if env is None else env,
            min_workers=min_workers,
            idle_timeout=idle_timeout,
            max_jobs_per_worker=max_jobs_per_worker,
            max_worker_memory=max_worker_memory,
            progress=progress,
            trace=trace,
            resubmit=resubmit,
        )
        options.check()
        if not in_toplevel_process():
            raise NestedPoolError(
                "a CompilePool cannot be made inside a worker: its jobs would run beside, not"
                " within, the limits of the pool that runs this one; call the function directly"
            )
        try:
            check_platform()
        except KernelTooOld as error:
            raise UnsupportedPlatform(str(error)) from None
        # Not at the top: on other platforms, this module can be imported, and says what is missing.
        from compilepool.client.options import terms_of
        from compilepool.client.session.session import Session

        self._options = options
        self._default_terms = terms_of(options, JobOptions())
        self._session = Session(options)
        # A pool that is dropped ends when its jobs have: their futures may still be waited for.
        end = weakref.finalize(self, self._session.shutdown, wait=False)
        end.atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> CompileFuture[T]:
        """Run `fn(*args, **kwargs)` in a worker.

        Args:
            fn: any callable that pickle or cloudpickle can send, lambdas and functions of
                `__main__` included.
            args: its arguments.
            kwargs: its keyword arguments.

        Returns:
            The future of its result. An exception that it raises arrives as itself, caused by a
            `RemoteTraceback`; errors of the pool are `CompilePoolError`s.

        Raises:
            PoolClosed: after `shutdown`.
            SerializationError: the call cannot be pickled.
            ValueError: its memory limit is less than what a worker takes, as far as that is known.
        """
        return self._submit(None, self._default_terms, fn, args, kwargs)

    def options(
        self,
        *,
        name: str | None = None,
        timeout: float | AsThePool | None = AS_THE_POOL,
        memory_limit: int | str | AsThePool | None = AS_THE_POOL,
        expected_memory: int | str | None = None,
        retries: int = 0,
        priority: int = 0,
        key: str | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> ConfiguredPool:
        """This pool, with options for the jobs submitted through what is returned.

        Args:
            name: what errors call the job; None: the name of its function.
            timeout: as the pool's, for these jobs; None: none.
            memory_limit: as the pool's, for these jobs; None: none.
            expected_memory: how much memory such a job will probably take, in bytes or as text; it
                waits until there is as much. None: what the last jobs of the same key took, or of
                the same name if there is no key.
            retries: how often a job runs again whose worker was killed from outside, or by the
                kernel for want of memory. Never after an exception, or a crash of its own.
            priority: jobs with a higher one are started first; those with the same as they come.
            key: jobs with the same key are the same job. When they have crashed their worker three
                times in a row, they fail at once, until `forget`.
            env: environment variables that differ for these jobs; None: unset. As before, when a
                job has ended.

        Raises:
            TypeError, ValueError: an option is wrong; the message names all that are.
        """
        from compilepool.client.options import terms_of

        env = {} if env is None else env
        options = JobOptions(
            name, timeout, memory_limit, expected_memory, retries, priority, key, env
        )
        options.check()
        return ConfiguredPool(self, name, terms_of(self._options, options))

    def forget(self, key: str) -> None:
        """Let jobs of a key run again that have crashed their worker too often.

        Args:
            key: theirs. Nothing happens if they have not.
        """
        self._session.forget(key)

    def warm_up(self) -> None:
        """Start all workers now, rather than when jobs need them. Does not wait for them.

        A job runs as soon as there is one worker. They stay until `idle_timeout`, or `quiesce`;
        one that is killed meanwhile is replaced at once.

        Raises:
            PoolClosed: after `shutdown`.
        """
        self._session.warm_up()

    def wakeup(self) -> None:
        """The same, under the name that PyTorch has for it: what `quiesce` ended comes back."""
        self.warm_up()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Warm up, and wait until all workers have started.

        Args:
            timeout: how long to wait, in seconds; None: until they have, or cannot.

        Returns:
            False if it took longer, or somebody has the pool `quiesce` meanwhile.

        Raises:
            PoolClosed: after `shutdown`.
            RuntimeError: a callback of a future calls, which must not wait for the pool.
            PreloadFailed, WorkerCrashed, SupervisorDied, or what the initializer has raised: they
                cannot start.
        """
        return self._session.wait_ready(timeout)

    @property
    def max_workers(self) -> int:
        """How many jobs may run at once."""
        return self._session.max_workers

    @property
    def ready(self) -> bool:
        """Whether all workers that were asked for have started, and there is one at least."""
        return self._session.processes.warmth.is_warm

    def quiesce(self, *, keep_warm: bool = False) -> None:
        """Let jobs end, those that wait included; then end all processes but one, which sleeps.

        Returns at once. The next job, or `wakeup`, brings the others back.

        Args:
            keep_warm: leave the fork server, too, with what it has preloaded.
        """
        self._session.processes.quiesce(keep_warm=keep_warm)

    def reload(self) -> None:
        """Import the `preload` anew: its files have changed.

        Jobs that run go on; those that have not begun, and all later ones, run with what is
        imported now. A preload that failed is tried again. The environment, `sys.path` and the
        working directory stay as they were when the pool started.
        """
        self._session.processes.reload()

    def stats(self) -> PoolStats:
        """How the pool is doing, and what it has done.

        Looks at the memory of each process, which takes about a millisecond for each.
        """
        return self._session.statistics.stats()

    def dump(self, future: CompileFuture[Any], *, timeout: float = 5.0) -> JobDump:
        """What a job does just now: for one that seems to hang. The job goes on.

        Works also while C code holds the GIL, or all threads wait for each other. A signal is
        handled in the worker, and each thread held for less than a millisecond: as by any signal,
        a sleep or poll of C code may return early (EINTR, signal(7)). Python's own do not.

        Args:
            future: the job's, made by this pool.
            timeout: how long to wait for it, in seconds. (Looking takes 2 s at most.)

        Raises:
            ValueError: the future is none of this pool's.
            TimeoutError: nothing was heard in time.
        """
        return self._session.dumps.dump(future, timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end the processes when the accepted ones have ended.

        Args:
            wait: return only when all processes are gone.
            cancel_futures: cancel the jobs that no worker has yet.
        """
        self._session.shutdown(wait=wait, cancel_futures=cancel_futures)

    def kill_workers(self) -> None:
        """Accept no more jobs, and end all processes at once, whatever they do.

        As `ProcessPoolExecutor.kill_workers` of Python 3.14. Jobs that have not ended fail with
        `PoolClosed`. Takes a second or two at most, if a process of the pool is stuck in the
        kernel.
        """
        self._session.terminate()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        is_interrupted = isinstance(exc_val, KeyboardInterrupt | SystemExit)
        if is_interrupted:
            self._session.terminate()
        self.shutdown(wait=not is_interrupted)  # `terminate` has waited as long as is good
        return False

    def _submit(
        self, name: str | None, terms: JobTerms, fn: Callable[..., T], args: Any, kwargs: Any
    ) -> CompileFuture[T]:
        if not callable(fn):
            raise TypeError(f"submit needs a callable, not {type(fn).__name__}")
        name = _name_of(fn) if name is None else name
        return self._session.submit(name, fn, args, kwargs, terms)


class ConfiguredPool(Executor):
    """A pool with options for jobs, made by `CompilePool.options`. The same pool, not another."""

    def __init__(self, pool: CompilePool, name: str | None, terms: JobTerms) -> None:
        self._pool = pool
        self._name = name
        self._terms = terms

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> CompileFuture[T]:
        """As `CompilePool.submit`, with these options."""
        return self._pool._submit(self._name, self._terms, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `CompilePool.shutdown`, for the whole pool."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        return self._pool.__exit__(exc_type, exc_val, exc_tb)


def _name_of(fn: Callable[..., object]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__qualname__", None) or repr(fn)
